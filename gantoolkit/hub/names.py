"""What a repository on the Hub is called."""

import re
from dataclasses import dataclass

from gantoolkit.errors import HubError

__all__ = ["RepositoryName", "is_repository_name"]

_PART = r"[A-Za-z0-9](?:[\w.-]{0,94}[A-Za-z0-9_])?"
_NAME = re.compile(rf"(?P<repository>{_PART}/{_PART})(?:@(?P<revision>[\w./-]{{1,128}}))?", re.ASCII)
_FORBIDDEN = ("--", "..")
_FILES = (".git", ".safetensors", ".toml", ".pth", ".onnx", ".pt2")
"""Endings of a file that is not there, not of a repository."""


@dataclass(frozen=True)
class RepositoryName:
    """A repository, and which of its states.

    Args:
        repository: `owner/name`.
        revision: A branch, a tag or a commit; None for the newest state.
    """

    repository: str
    revision: str | None = None

    @classmethod
    def parse(cls, text: str) -> "RepositoryName":
        """Read `owner/name` or `owner/name@revision`.

        Raises:
            HubError: When it is neither.
        """
        found = _NAME.fullmatch(text)
        if found is None or any(sign in text for sign in _FORBIDDEN) or found["repository"].endswith(_FILES):
            raise HubError(
                f"{text!r} is no name of a repository; it is owner/name, or owner/name@revision, of letters, digits, '-', "
                "'_' and '.'"
            )
        return cls(found["repository"], found["revision"])

    def __str__(self) -> str:
        return self.repository if self.revision is None else f"{self.repository}@{self.revision}"


def is_repository_name(text: str) -> bool:
    """Whether a text has the form of a repository's name.

    >>> is_repository_name("ada/horse2zebra@v1"), is_repository_name("runs/h2z/generators"), is_repository_name("a/b.pth")
    (True, False, False)
    """
    try:
        RepositoryName.parse(text)
    except HubError:
        return False
    return True

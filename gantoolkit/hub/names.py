"""Names of repositories on the Hub."""

import re
from dataclasses import dataclass

from gantoolkit.errors import HubError

__all__ = ["RepositoryName", "is_repository_name"]

_PART = r"[A-Za-z0-9](?:[\w.-]{0,94}[A-Za-z0-9_])?"
_NAME = re.compile(rf"(?P<repository>{_PART}/{_PART})(?:@(?P<revision>[\w./-]{{1,128}}))?", re.ASCII)
_FORBIDDEN = ("--", "..")
_FILE_SUFFIXES = (".git", ".safetensors", ".toml", ".pth", ".onnx", ".pt2")
"""A name with one of these suffixes is a path to a missing file, not a repository."""


@dataclass(frozen=True)
class RepositoryName:
    """A repository, optionally at a revision.

    Args:
        repository: `owner/name`.
        revision: A branch, tag or commit; None for the head of the default branch.
    """

    repository: str
    revision: str | None = None

    @classmethod
    def parse(cls, text: str) -> "RepositoryName":
        """Parse `owner/name` or `owner/name@revision`.

        Raises:
            HubError: If the text is neither.
        """
        match = _NAME.fullmatch(text)
        if match is None or any(part in text for part in _FORBIDDEN) or match["repository"].endswith(_FILE_SUFFIXES):
            raise HubError(
                f"{text!r} is not a repository name; use owner/name or owner/name@revision, with letters, digits, '-', '_' "
                "and '.' only"
            )
        return cls(match["repository"], match["revision"])

    def __str__(self) -> str:
        return self.repository if self.revision is None else f"{self.repository}@{self.revision}"


def is_repository_name(text: str) -> bool:
    """Whether a text has the format of a repository name.

    >>> is_repository_name("ada/horse2zebra@v1"), is_repository_name("runs/h2z/generators"), is_repository_name("a/b.pth")
    (True, False, False)
    """
    try:
        RepositoryName.parse(text)
    except HubError:
        return False
    return True

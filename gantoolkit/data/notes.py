"""What a user should know about an image file that was read, such as pages that are not used."""

from dataclasses import dataclass

__all__ = ["Note"]


@dataclass(frozen=True)
class Note:
    """A remark about how a file was read.

    Args:
        text: What was done, as the predicate of a sentence whose subject is the file: `has transparent pixels, which are
            blended with white`. It is the same for all files of a kind, so that notes can be counted.
        passed_over: Whether a part of the file is not used, so that a command that needs all of it exits with code 3.
    """

    text: str
    passed_over: bool = False

"""What a user should know about an image file that was read, such as pages that are not used."""

from dataclasses import dataclass

__all__ = [
    "CMYK_CHANNELS",
    "CONVERTED_COLORS",
    "EXTRA_BANDS",
    "FEW_LEVELS",
    "IGNORED_PROFILE",
    "SEVERAL_FRAMES",
    "SEVERAL_PAGES",
    "TRANSPARENT_PIXELS",
    "UNUSED_PROFILE",
    "Note",
    "describe_files",
]


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


def describe_files(first: object, text: str, count: int) -> str:
    """A sentence about `count` files, with the name of the first one as its subject."""
    return f"{first} {text}" + (f" (and {count - 1:,} more)" if count > 1 else "")


SEVERAL_PAGES = Note("has several pages, of which only the first is used", passed_over=True)
"""Of page 0 only. It does not apply to a command that reads the other pages too."""
SEVERAL_FRAMES = Note("has several frames, of which only the first is used", passed_over=True)
"""The same for an animation."""
EXTRA_BANDS = Note("has bands besides its colors, such as near infrared, which are not used", passed_over=True)
FEW_LEVELS = Note(
    "has 16 bits, and its levels use less than an eighth of them, so that it is almost black; data.range_A or data.range_B = "
    "[low, high] reads them as values"
)
TRANSPARENT_PIXELS = Note("has transparent pixels, which are blended with white")
CONVERTED_COLORS = Note("has a color profile, and its colors are converted to sRGB")
IGNORED_PROFILE = Note("has a color profile that is damaged or is for other channels, and it is ignored")
UNUSED_PROFILE = Note("has a color profile other than sRGB; only 8-bit gray and RGB are converted to sRGB")
CMYK_CHANNELS = Note("has CMYK colors, whose four inks are read as the four channels")

"""Which files are images: by their suffix, or, without a usual suffix, by their first bytes."""

import re
from pathlib import Path

from gantoolkit.data.formats import START_BYTES, looks_like_image

__all__ = ["SUFFIXES", "VIDEO_SUFFIXES", "unread_ending"]

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".bmp", ".dib", ".gif", ".webp"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".tif", ".tiff", ".npy"),
)
"""Suffixes of image files. When a file is read, its content determines the format."""

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi")
"""Suffixes of files that are treated as videos where videos are read."""

_UNREAD_SUFFIXES = (
    *(
        ".heic",
        ".heif",
        ".hif",
        ".avif",
        ".jp2",
        ".j2k",
        ".jpf",
        ".jpx",
        ".j2c",
        ".jxl",
        ".jxr",
        ".wdp",
        ".qoi",
        ".mpo",
    ),
    *(".tga", ".ico", ".icns", ".cur", ".psd", ".psb", ".xcf", ".kra", ".svg", ".svgz", ".eps", ".pcx", ".sgi", ".dds"),
    *(
        ".xbm",
        ".xpm",
        ".pam",
        ".wmf",
        ".emf",
        ".exr",
        ".hdr",
        ".pfm",
        ".fits",
        ".fit",
        ".dng",
        ".cr2",
        ".cr3",
        ".nef",
        ".arw",
    ),
    *(
        ".raf",
        ".orf",
        ".rw2",
        ".pef",
        ".srw",
        ".dcm",
        ".dicom",
        ".nii",
        ".mha",
        ".mhd",
        ".nrrd",
        ".czi",
        ".lif",
        ".nd2",
    ),
    *(".svs", ".ndpi", ".lsm", ".btf", ".npz", *VIDEO_SUFFIXES, ".wmv", ".mpg", ".mpeg", ".flv", ".mts", ".m2ts"),
)
_USUAL_SUFFIX = re.compile(r"\.[a-z][a-z0-9]{0,7}")


def unread_ending(path: Path) -> str | None:
    """The ending of an image or video whose format is not read, such as `.heic`; None for any other file.

    For a file without a usual suffix that contains an image, this is `no suffix` or the unusual suffix.
    """
    suffix = path.suffix.lower()
    if path.name.lower().endswith(".nii.gz"):
        return ".nii.gz"
    if suffix in _UNREAD_SUFFIXES:
        return suffix
    if _USUAL_SUFFIX.fullmatch(suffix) or not _contains_image(path):
        return None
    return suffix or "no suffix"


def _contains_image(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            start = file.read(START_BYTES)
    except OSError:
        return False
    return looks_like_image(start)

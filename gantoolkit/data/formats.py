"""The formats of image files, detected by their content, and names for those that are not read."""

import re

__all__ = ["HEADER_BYTES", "PILLOW_FORMATS", "START_BYTES", "describe_format", "detect_format", "looks_like_image"]

PILLOW_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "DIB", "PPM", "TIFF", "WEBP")
"""No other format is tried. Pillow knows dozens more and runs other programs for some of them (EPS)."""

HEADER_BYTES = 32
"""The number of bytes from which a format is detected."""

START_BYTES = 132
"""The number of bytes that show whether a file contains an image; those of DICOM follow 128 other bytes."""

_IMAGE_STARTS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8")
_IMAGE_HEADER = re.compile(rb"BM.{4}\0{4}|P[1-6]\s+(#|\d)", re.DOTALL)  # bitmaps; portable pixmaps
_IMAGE_NAMES = (
    "JPEG 2000 file",
    "JPEG XL file",
    "AVIF file",
    "HEIC file",
    "(CR3)",
    "Photoshop file",
    "FITS file",
    "EXR file",
)

_NPY, _TIFF = b"\x93NUMPY", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_UNSUPPORTED = (
    (0, b"\0\0\1\0", "an icon (ICO)"),
    (0, b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 file"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 file"),
    (0, b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL file"),
    (0, b"\xff\x0a", "a JPEG XL file"),
    (4, b"ftypavi", "an AVIF file"),
    (4, b"ftyphe", "a HEIC file"),
    (4, b"ftypmif1", "a HEIC or AVIF file"),
    (4, b"ftypmsf1", "a HEIC or AVIF file"),
    (4, b"ftypcrx", "a camera's raw file (CR3)"),
    (4, b"ftyp", "a video"),
    (4, b"moov", "a video"),
    (0, b"\x1a\x45\xdf\xa3", "a video"),
    (0, b"8BPS", "a Photoshop file"),
    (0, b"%!PS", "a PostScript file"),
    (0, b"\xc5\xd0\xd3\xc6", "a PostScript file"),
    (0, b"%PDF", "a PDF file"),
    (0, b"<svg", "a vector graphic (SVG)"),
    (0, b"\x89HDF\r\n", "an HDF5 file"),
    (0, b"SIMPLE  =", "a FITS file"),
    (0, b"PK\3\4", "an archive (.zip or .npz)"),
    (0, b"v/1\1", "an OpenEXR file"),
    (0, b"#?RADIANCE", "a Radiance HDR file"),
    (0, b"version https://git-lfs", "a pointer of Git LFS, whose file has not been downloaded"),
    (0, b"<!DOCTYPE", "a web page"),
    (0, b"<html", "a web page"),
)
"""Offset, content and name of formats that are not read."""


def detect_format(header: bytes) -> str:
    """`npy`, `tiff`, or an empty string for all others, from the first bytes of a file."""
    return "npy" if header.startswith(_NPY) else "tiff" if header[:4] in _TIFF else ""


def describe_format(header: bytes) -> str:
    """What a file is that is not read, from its first bytes, such as `a HEIC file`; empty if unknown."""
    return next((name for offset, content, name in _UNSUPPORTED if header[offset:].startswith(content)), "")


def looks_like_image(start: bytes) -> bool:
    """Whether a file contains an image of a widespread format, read or not, from its first `START_BYTES`."""
    is_dicom = start[128:132] == b"DICM"
    is_known = start.startswith(_IMAGE_STARTS) or start[8:12] == b"WEBP" or bool(_IMAGE_HEADER.match(start))
    return bool(detect_format(start)) or is_known or is_dicom or describe_format(start).endswith(_IMAGE_NAMES)

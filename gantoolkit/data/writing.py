"""Writing image files: pictures as JPEG and PNG, values of any encoding as PNG, TIFF and .npy."""

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gantoolkit.data.attributes import Attributes, text_tags
from gantoolkit.data.encoding import Encoding
from gantoolkit.data.png_chunks import add_png_attributes
from gantoolkit.errors import DataError, requires_extra
from gantoolkit.files.atomic import atomic_write, describe_write_error
from gantoolkit.files.paths import user_path

__all__ = [
    "UnwritableError",
    "holds_frames",
    "holds_opacity",
    "holds_pages",
    "image_options",
    "stored_dtype",
    "supported_suffixes",
    "write_image",
    "write_pages",
    "write_pixels",
]

_QUALITY = 95
_MAX_PNG_CHANNELS = 4
_JPEG, _TIFF = (".jpg", ".jpeg"), (".tif", ".tiff")
_MAX_JPEG_EXIF = 65533
_MAX_CLASSIC_TIFF = 2**32 - 2**25
"""Bytes of pixels beyond which a file is a BigTIFF: its offsets have 64 bits."""


class UnwritableError(DataError):
    """A file cannot be written: for reasons of the disk, not of what it was to hold."""


def write_image(image: Image.Image, path: str | Path, *, attributes: Attributes | None = None) -> None:
    """Write a JPEG (suffix .jpg or .jpeg) or PNG file atomically. Missing folders are created.

    Args:
        attributes: The resolution and EXIF data to write.

    Raises:
        UnwritableError: When the file cannot be written. No partial file remains.
    """
    path = user_path(path)
    is_jpeg = path.suffix.lower() in _JPEG
    options = image_options(attributes or Attributes())
    if is_jpeg:
        options |= {"quality": _QUALITY}
        if len(options.get("exif", b"")) > _MAX_JPEG_EXIF:
            del options["exif"]
    try:
        with atomic_write(path) as part:
            image.save(part, "JPEG" if is_jpeg else "PNG", **options)
    except OSError as error:
        raise UnwritableError(describe_write_error(path, error)) from error


def image_options(attributes: Attributes) -> dict[str, Any]:
    """The attributes that Pillow can write, as arguments of `Image.save`."""
    values = {"dpi": attributes.dpi, "exif": attributes.exif}
    return {name: value for name, value in values.items() if value}


def supported_suffixes(encoding: Encoding) -> tuple[str, ...]:
    """The suffixes of the formats that can store images of an encoding, the most widely supported lossless format first."""
    if encoding.is_picture:
        return ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".npy"
    fits_png = encoding.channels <= _MAX_PNG_CHANNELS and encoding.low >= 0 and encoding.high <= 65535
    if encoding.bits and fits_png:
        return ".png", ".tif", ".tiff", ".npy"
    return ".tif", ".tiff", ".npy", *((".png",) if fits_png else ())


def holds_pages(path: Path) -> bool:
    """Whether the format of a path, by its suffix, holds several pages."""
    return path.suffix.lower() in _TIFF


def holds_frames(path: Path, encoding: Encoding) -> bool:
    """Whether the format of a path, by its suffix, holds an animation of images of an encoding."""
    return path.suffix.lower() == ".png" and encoding.bits == 8 and encoding.channels in (1, 3, 4)


def holds_opacity(path: Path, encoding: Encoding) -> bool:
    """Whether the format of a path, by its suffix, holds the opacity of pixels beside the channels of an encoding."""
    return path.suffix.lower() in (".png", *_TIFF) and encoding.bits is not None and encoding.channels in (1, 3)


def stored_dtype(path: Path, encoding: Encoding) -> np.dtype:
    """The dtype of the values in a file, by its suffix: that of the encoding, or unsigned integers for a range in PNG."""
    if encoding.bits or path.suffix.lower() != ".png":
        return encoding.dtype
    return np.dtype(np.uint8 if encoding.high <= 255 else np.uint16)


def write_pixels(
    pixels: np.ndarray, path: str | Path, encoding: Encoding, *, attributes: Attributes | None = None
) -> None:
    """Write values atomically, in one of the formats of `supported_suffixes`. PNG files store rounded values.

    Args:
        pixels: Values (H, W, C); or (H, W, C + 1), if the last channel is the opacity and `holds_opacity`.
        attributes: What else to write, as far as the format holds it.

    Raises:
        DataError: When the format cannot store the values.
        UnwritableError: When the file cannot be written.
    """
    path = user_path(path)
    suffix = path.suffix.lower()
    if suffix not in supported_suffixes(encoding):
        raise DataError(f"{path}: cannot store an image of {encoding}; {', '.join(supported_suffixes(encoding))} can")
    if suffix in _TIFF:
        write_pages([pixels], path, encoding, count=1, attributes=attributes)
        return
    flat = pixels[..., 0] if pixels.shape[2] == 1 else pixels
    if encoding.is_picture and suffix != ".npy":
        write_image(Image.fromarray(flat), path, attributes=attributes)
        return
    try:
        with atomic_write(path) as part:
            if suffix == ".npy":
                with part.open("wb") as file:  # given a path, numpy would add a suffix
                    np.save(file, flat, allow_pickle=False)
            else:
                part.write_bytes(_encode_png(flat, path, encoding, attributes or Attributes()))
    except OSError as error:
        raise UnwritableError(describe_write_error(path, error)) from error


def write_pages(
    pages: Iterable[np.ndarray],
    path: str | Path,
    encoding: Encoding,
    *,
    count: int,
    attributes: Attributes | None = None,
) -> None:
    """Write the pages of a TIFF file atomically, one at a time.

    Args:
        pages: The values of each page, as in `write_pixels`.
        count: The number of pages.
        attributes: What else to write to each page.

    Raises:
        UnwritableError: When the file cannot be written.
    """
    path = user_path(path)
    with requires_extra("depth", f"{path}: writing this TIFF file", DataError):
        from tifffile import TiffWriter
    pages = iter(pages)
    first = next(pages)
    options = _tiff_options(attributes or Attributes(), encoding)
    try:
        with (
            atomic_write(path) as part,
            TiffWriter(part, bigtiff=count * first.nbytes > _MAX_CLASSIC_TIFF) as file,
        ):
            for pixels in itertools.chain([first], pages):
                flat = pixels[..., 0] if pixels.shape[2] == 1 else pixels
                file.write(np.ascontiguousarray(flat), **_sample_options(pixels.shape[2], encoding), **options)
    except OSError as error:
        raise UnwritableError(describe_write_error(path, error)) from error


def _sample_options(samples: int, encoding: Encoding) -> dict[str, Any]:
    """How tifffile describes the samples of a pixel; the last one is the opacity if there are more than channels."""
    has_opacity = samples > encoding.channels or encoding.channels == 4
    return {
        "photometric": "rgb" if encoding.channels in (3, 4) else "minisblack",
        "planarconfig": "contig" if samples > 1 else None,
        "extrasamples": ["unassalpha"] if has_opacity else None,
    }


def _tiff_options(attributes: Attributes, encoding: Encoding) -> dict[str, Any]:
    resolution = {"resolution": attributes.dpi, "resolutionunit": "INCH"} if attributes.dpi else {}
    return {
        "compression": "zlib",
        "metadata": None,
        "iccprofile": attributes.profile_for(encoding.channels) or None,
        "extratags": [*attributes.georeference.tags(), *text_tags(attributes.exif)],
        **resolution,
    }


def _encode_png(flat: np.ndarray, path: Path, encoding: Encoding, attributes: Attributes) -> bytes:
    with requires_extra("depth", f"{path}: writing this PNG file", DataError):
        from imagecodecs import png_encode
    content = bytes(png_encode(np.ascontiguousarray(np.rint(flat).astype(stored_dtype(path, encoding)))))
    return add_png_attributes(content, attributes, encoding.channels)

"""Image files as arrays of values: 8 and 16 bits, floats, any number of channels; PNG, TIFF, .npy and all that Pillow reads.

Values are kept as they are in the file. For a domain of 8-bit or 16-bit images, other bit depths are scaled, so that white
stays white. For a domain with a range of values, values outside the range are rejected. Gray or RGB images of 8 bits are read
as `gantoolkit.data.images` describes.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from gantoolkit.data.encoding import Encoding
from gantoolkit.data.images import (
    ImageFile,
    check_pixel_count,
    convert_read_errors,
    decode,
    open_image,
    read_size,
    to_mode,
)
from gantoolkit.data.notes import Note
from gantoolkit.errors import DataError, requires_extra
from gantoolkit.files.paths import user_path
from gantoolkit.recipes.settings import Resample

__all__ = [
    "DecodedImage",
    "count_pages",
    "fit_pixels",
    "read_decoded_image",
    "read_levels",
    "read_pixel_size",
    "read_pixels",
    "resize_pixels",
]

_NPY, _TIFF = b"\x93NUMPY", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_LUMINANCE = np.array([299, 587, 114]) / 1000  # ITU-R BT.601, as in Pillow
_RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "nearest": Image.Resampling.NEAREST}
_DIRECT = ("MINISBLACK", "MINISWHITE", "RGB")
"""Photometric interpretations of TIFF files whose samples are the values."""

# tifffile logs irregularities of files; without a handler, they are printed.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


@dataclass(frozen=True)
class DecodedImage:
    """An image as it was read from a file.

    Args:
        pixels: The values (H, W, C) of the encoding's dtype.
        alpha: The opacity (H, W) of each pixel as uint8, if the file has transparent pixels and the encoding has no channel for
            them; otherwise None.
        nodata: Whether a pixel has no data (H, W), as bool, if the encoding defines a value for that; otherwise None.
        notes: What the user should know about how the file was read.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    nodata: np.ndarray | None = None
    notes: tuple[Note, ...] = ()


def read_pixels(
    source: str | Path | ImageFile, encoding: Encoding, *, page: int = 0, max_pixels: int | None = None
) -> np.ndarray:
    """Read an image file, or one half of it, as values (H, W, C) of the encoding's dtype.

    Args:
        page: The page or frame of the file.
        max_pixels: The largest number of pixels; `MAX_PIXELS` by default.

    Raises:
        DataError: When the file cannot be read, or its channels or values do not match the encoding.
    """
    return read_decoded_image(source, encoding, page=page, max_pixels=max_pixels).pixels


def read_decoded_image(
    source: str | Path | ImageFile, encoding: Encoding, *, page: int = 0, max_pixels: int | None = None
) -> DecodedImage:
    """Read an image file, or one half of it, with all that is known about its pixels.

    Args:
        page: The page or frame of the file.
        max_pixels: The largest number of pixels; `MAX_PIXELS` by default.

    Raises:
        DataError: When the file cannot be read, has no such page, or its channels or values do not match the encoding.
    """
    file = ImageFile.of(source)
    pages = count_pages(file.path, encoding)
    if not 0 <= page < pages:
        raise DataError(f"{file.path}: has {pages} pages; there is no page {page}")
    pixels = _read_file(file.path, encoding, page, max_pixels)
    notes = (Note("has several pages, of which only the first is used", passed_over=True),) if pages > 1 else ()
    if file.half is not None:
        pixels = pixels[:, file.columns(pixels.shape[1])]
    return DecodedImage(pixels, notes=notes)


def count_pages(path: str | Path, encoding: Encoding) -> int:
    """Count the images in a file, pages or frames, without decoding them.

    Raises:
        DataError: When the header cannot be read.
    """
    path = Path(path)
    if _detect_format(path) == "npy":
        return 1
    if _detect_format(path) == "tiff" and not encoding.is_picture:
        return 1
    with open_image(path) as file:
        return getattr(file, "n_frames", 1)


def _read_file(path: Path, encoding: Encoding, page: int, max_pixels: int | None) -> np.ndarray:
    kind = _detect_format(path)
    if encoding.is_picture and kind != "npy":
        with open_image(path, max_pixels=max_pixels) as file:
            file.seek(page)
            return np.atleast_3d(np.asarray(to_mode(decode(file), encoding.channels)))
    with convert_read_errors(path):
        if kind == "npy":
            values, bits = _read_npy(path, encoding)
        else:
            values, bits = (_read_tiff(path, encoding) if kind == "tiff" else None) or _read_other(path, encoding)
        return fit_pixels(path, values, bits, encoding)


def read_pixel_size(path: str | Path, encoding: Encoding) -> tuple[int, int]:
    """Read the width and height from a file's header, before any EXIF rotation.

    Raises:
        DataError: As `read_pixels`, as far as the header shows it.
    """
    path = user_path(path)
    kind = _detect_format(path)
    with convert_read_errors(path):
        if kind == "npy":
            height, width = np.load(path, mmap_mode="r", allow_pickle=False).shape[:2]
            return width, height
        if kind == "tiff" and not encoding.is_picture:
            with _open_tiff(path) as page:
                return page.imagewidth, page.imagelength
    return read_size(path)


def fit_pixels(path: str | Path, values: np.ndarray, bits: int, encoding: Encoding) -> np.ndarray:
    """Convert values (H, W) or (H, W, C) to an encoding: (H, W, C) of its dtype.

    Args:
        path: The name of the image in error messages.
        bits: The bit depth of the values, if they are levels.

    Raises:
        DataError: When the channels or values do not match the encoding.
    """
    _check_shape(path, values.shape, encoding)
    values = np.atleast_3d(values)
    if not encoding.bits:
        if values.dtype.kind not in "uif":
            raise DataError(f"{path}: has dtype {values.dtype}; an image has integers or floats")
        values = values.astype(np.float32)
        low, high = values.min(), values.max()
        if not (np.float32(encoding.low) <= low and high <= np.float32(encoding.high)):  # also catches NaN
            problem = "NaN values" if np.isnan(low) else f"values from {low:g} to {high:g}"
            raise DataError(
                f"{path}: contains {problem}; the range of its domain is {encoding.low:g} to {encoding.high:g}"
            )
        return values
    if values.dtype.kind != "u" or bits > 16:
        raise DataError(
            f"{path}: has dtype {values.dtype}, which does not define which value is white; set data.range_A or data.range_B "
            "to the range of its values"
        )
    if bits != encoding.bits:
        values = np.rint(values * (encoding.high / ((1 << bits) - 1)))
    if values.shape[2] != encoding.channels:
        values = values.repeat(3, axis=2) if encoding.channels == 3 else np.rint(values @ _LUMINANCE)[..., None]
    return values.astype(encoding.dtype)


def resize_pixels(
    pixels: np.ndarray, size: tuple[int, int], encoding: Encoding, resample: Resample | None = None
) -> np.ndarray:
    """Resize values (H, W, C) to a width and height, clipped to the encoding's range.

    Args:
        resample: How to resize; by default, as the encoding says.
    """
    method = _RESAMPLING[resample or encoding.resample]
    if encoding.is_picture:
        flat = pixels[..., 0] if pixels.shape[2] == 1 else pixels
        return np.atleast_3d(np.asarray(Image.fromarray(flat).resize(size, method)))
    planes = [Image.fromarray(plane.astype(np.float32)).resize(size, method) for plane in np.moveaxis(pixels, 2, 0)]
    values = np.stack([np.asarray(plane) for plane in planes], axis=2).clip(encoding.low, encoding.high)
    return (np.rint(values) if encoding.bits else values).astype(encoding.dtype)


def _detect_format(path: Path) -> str:
    with convert_read_errors(path), path.open("rb") as file:
        start = file.read(len(_NPY))
    return "npy" if start == _NPY else "tiff" if start[:4] in _TIFF else ""


def _read_npy(path: Path, encoding: Encoding) -> tuple[np.ndarray, int]:
    values = np.load(path, mmap_mode="r", allow_pickle=False)  # mapped: the shape is checked before memory is allocated
    _check_shape(path, values.shape, encoding)
    return np.array(values, dtype=values.dtype.newbyteorder("=")), 8 * values.dtype.itemsize


def _read_tiff(path: Path, encoding: Encoding) -> tuple[np.ndarray, int] | None:
    """Read a page whose samples are the values; None if Pillow has to look up or convert them."""
    with _open_tiff(path) as page:
        bits = page.bitspersample
        if page.photometric.name not in _DIRECT or (bits < 8 and encoding.bits):
            return None
        _check_shape(path, (page.imagelength, page.imagewidth, page.samplesperpixel), encoding)
        values = page.asarray()
        values = values.astype(np.uint8) if values.dtype == bool else values
        if page.axes.startswith("S"):
            values = np.moveaxis(values, 0, -1)
        if values.ndim > 3 or values.shape[:2] != (page.imagelength, page.imagewidth):
            raise DataError(f"{path}: contains an array {page.axes} {values.shape}; an image is YX or YXS")
        if page.photometric.name == "MINISWHITE" and values.dtype.kind == "u":
            values = (1 << bits) - 1 - values
        return _turn_upright(values, page.tags.get("Orientation")), bits


@contextmanager
def _open_tiff(path: Path) -> Iterator[Any]:
    with requires_extra("depth", f"{path}: this TIFF file", DataError):
        from tifffile import TiffFile
    with TiffFile(path) as file:
        page = file.pages.first
        check_pixel_count(path, page.imagewidth, page.imagelength)
        yield page


def _read_other(path: Path, encoding: Encoding) -> tuple[np.ndarray, int]:
    with open_image(path) as file:
        if _is_16_bit_color_png(file):
            return _turn_upright(_decode_16_bit_png(path), file.getexif().get(ExifTags.Base.Orientation)), 16
        factor = _scale_factor(path, file)
        values, bits = read_levels(decode(file))
    return (values, bits) if encoding.bits else (values // factor, bits)


def read_levels(image: Image.Image) -> tuple[np.ndarray, int]:
    """The levels of an open image and their bit depth. Palettes are looked up.

    Raises:
        DataError: When the mode of the image is not supported.
    """
    if image.mode in ("P", "PA", "YCbCr"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    elif image.mode == "1":
        image = image.convert("L")
    elif image.mode not in ("L", "LA", "RGB", "RGBA", "CMYK") and not image.mode.startswith("I;16"):
        raise DataError(f"mode '{image.mode}' is not supported; save the image as TIFF or .npy")
    return np.asarray(image), 16 if image.mode.startswith("I;16") else 8


def _scale_factor(path: Path, file: Image.Image) -> int:
    """The factor by which Pillow multiplies the values of a file with fewer than 8 bits.

    Raises:
        DataError: When the factor is not an integer.
    """
    arguments = [part.args for part in getattr(file, "tile", ())]
    if file.format == "PPM":
        highest = next((args[1] for args in arguments if isinstance(args, tuple) and len(args) > 1), 255)
        if highest not in (255, 65535):
            raise DataError(
                f"{path}: its highest level is {highest}; save it as PNG, TIFF or .npy, which keep the values"
            )
    return {"1": 255, "L;1": 255, "L;2": 85, "L;4": 17}.get(str(next(iter(arguments), "")), 1)


def _is_16_bit_color_png(file: Image.Image) -> bool:
    """Whether a file is a PNG with 16-bit colors, of which Pillow keeps the upper 8 bits only."""
    parts = (str(part.args) for part in getattr(file, "tile", ()))
    return file.format == "PNG" and any(part.endswith(";16B") and part != "I;16B" for part in parts)


def _decode_16_bit_png(path: Path) -> np.ndarray:
    with requires_extra("depth", f"{path}: 16-bit color PNG", DataError):
        from imagecodecs import png_decode
    return png_decode(path.read_bytes())


def _turn_upright(values: np.ndarray, orientation: Any) -> np.ndarray:
    """Apply an EXIF orientation, given as a number or as a TIFF tag."""
    match getattr(orientation, "value", orientation):
        case 2:
            return values[:, ::-1]
        case 3:
            return values[::-1, ::-1]
        case 4:
            return values[::-1]
        case 5:
            return values.swapaxes(0, 1)
        case 6:
            return np.rot90(values, -1)
        case 7:
            return values.swapaxes(0, 1)[::-1, ::-1]
        case 8:
            return np.rot90(values)
    return values


def _check_shape(path: str | Path, shape: tuple[int, ...], encoding: Encoding) -> None:
    if len(shape) not in (2, 3) or 0 in shape:
        raise DataError(f"{path}: contains an array {shape}; an image is (height, width) or (height, width, channels)")
    check_pixel_count(path, shape[1], shape[0])
    channels = shape[2] if len(shape) == 3 else 1
    convertible = bool(encoding.bits) and {channels, encoding.channels} == {1, 3}
    if channels != encoding.channels and not convertible:
        actual, expected = (f"{count} channel{'s' if count > 1 else ''}" for count in (channels, encoding.channels))
        raise DataError(f"{path}: has {actual}; images of its domain have {expected}")

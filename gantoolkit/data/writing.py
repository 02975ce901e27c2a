"""Writing image files: pictures as JPEG and PNG, values of any encoding as PNG, TIFF and .npy."""

from pathlib import Path

import numpy as np
from PIL import Image

from gantoolkit.data.encoding import Encoding
from gantoolkit.errors import DataError, requires_extra
from gantoolkit.files.atomic import atomic_write, describe_write_error
from gantoolkit.files.paths import user_path

__all__ = ["supported_suffixes", "write_image", "write_pixels"]

_QUALITY = 95
_MAX_PNG_CHANNELS = 4


def write_image(image: Image.Image, path: str | Path) -> None:
    """Write a JPEG (suffix .jpg or .jpeg) or PNG file atomically. Missing folders are created.

    Raises:
        DataError: When the file cannot be written. No partial file remains.
    """
    path = user_path(path)
    image_format = "JPEG" if path.suffix.lower() in (".jpg", ".jpeg") else "PNG"
    try:
        with atomic_write(path) as part:
            image.save(part, image_format, **({"quality": _QUALITY} if image_format == "JPEG" else {}))
    except OSError as error:
        raise DataError(describe_write_error(path, error)) from error


def supported_suffixes(encoding: Encoding) -> tuple[str, ...]:
    """The suffixes of the formats that can store images of an encoding, the most widely supported lossless format first."""
    if encoding.is_picture:
        return ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".npy"
    fits_png = encoding.channels <= _MAX_PNG_CHANNELS and encoding.low >= 0 and encoding.high <= 65535
    if encoding.bits and fits_png:
        return ".png", ".tif", ".tiff", ".npy"
    return ".tif", ".tiff", ".npy", *((".png",) if fits_png else ())


def write_pixels(pixels: np.ndarray, path: str | Path, encoding: Encoding) -> None:
    """Write values (H, W, C) atomically, in one of the formats of `supported_suffixes`. PNG files store rounded values.

    Raises:
        DataError: When the format cannot store the values, or the file cannot be written.
    """
    path = user_path(path)
    suffix = path.suffix.lower()
    if suffix not in supported_suffixes(encoding):
        raise DataError(f"{path}: cannot store an image of {encoding}; {', '.join(supported_suffixes(encoding))} can")
    flat = pixels[..., 0] if pixels.shape[2] == 1 else pixels
    if encoding.is_picture and suffix in (".png", ".jpg", ".jpeg"):
        write_image(Image.fromarray(flat), path)
        return
    try:
        with atomic_write(path) as part:
            _encode(np.ascontiguousarray(flat), part, suffix, encoding)
    except OSError as error:
        raise DataError(describe_write_error(path, error)) from error


def _encode(flat: np.ndarray, path: Path, suffix: str, encoding: Encoding) -> None:
    if suffix == ".npy":
        with path.open("wb") as file:  # given a path, numpy would add a suffix
            np.save(file, flat, allow_pickle=False)
        return
    with requires_extra("depth", f"{path}: writing this {suffix} file", DataError):
        from imagecodecs import png_encode
        from tifffile import imwrite
    if suffix == ".png":
        rounded = np.rint(flat).astype(np.uint8 if encoding.high <= 255 else np.uint16)
        path.write_bytes(png_encode(rounded))
        return
    is_color = encoding.channels in (3, 4)
    imwrite(
        path,
        flat,
        photometric="rgb" if is_color else "minisblack",
        planarconfig="contig" if flat.ndim == 3 else None,
        extrasamples=["unassalpha"] if encoding.channels == 4 else None,
        compression="zlib",
        metadata=None,
    )

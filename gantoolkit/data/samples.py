"""The samples of images that Pillow opens, for domains other than 8-bit gray and RGB."""

from pathlib import Path

import numpy as np
from PIL import Image

from gantoolkit.data.encoding import Encoding
from gantoolkit.data.images import ImageContent
from gantoolkit.data.notes import CMYK_CHANNELS, Note
from gantoolkit.data.pictures import change_mode
from gantoolkit.data.profiles import note_unused_profile
from gantoolkit.data.values import Samples
from gantoolkit.errors import DataError, requires_extra

__all__ = ["decode_16_bit_png", "find_scale", "is_16_bit_color_png", "read_samples"]

_COLORS = {"LA": "L", "RGBA": "RGB"}
"""Modes with opacity, without it."""


def read_samples(name: object, image: Image.Image, encoding: Encoding) -> Samples:
    """The samples of a decoded image. Palettes are looked up.

    Args:
        name: The name of the image in error messages.

    Raises:
        DataError: When the mode of the image is not supported.
    """
    if image.mode.startswith("I;16"):
        return _read_16_bits(image, encoding)
    if image.mode in ("I", "F"):
        values = np.asarray(image)
        return Samples.of(values)
    if image.mode == "CMYK" and encoding.bits and encoding.channels in (1, 3):
        image = image.convert("RGB")
    mode = _choose_mode(image, encoding)
    if mode is None:
        raise DataError(f"{name}: mode '{image.mode}' is not supported; save the image as TIFF or .npy")
    notes: tuple[Note, ...] = (CMYK_CHANNELS,) if mode == "CMYK" and encoding.bits else ()
    if encoding.bits:
        notes += note_unused_profile(image.info.get("icc_profile"), _COLORS.get(mode, mode))
    return Samples(np.asarray(change_mode(image, mode)), 8, alpha=mode in ("LA", "RGBA"), notes=notes)


def find_scale(name: object, file: Image.Image) -> int:
    """The factor by which Pillow multiplies the values of a file with fewer than 8 bits.

    Raises:
        DataError: When the factor is not an integer.
    """
    arguments = [part.args for part in getattr(file, "tile", ())]
    if file.format == "PPM":
        highest = next((args[1] for args in arguments if isinstance(args, tuple) and len(args) > 1), 255)
        if highest not in (255, 65535):
            raise DataError(
                f"{name}: its highest level is {highest}; save it as PNG, TIFF or .npy, which keep the values"
            )
    return {"1": 255, "L;1": 255, "L;2": 85, "L;4": 17}.get(str(next(iter(arguments), "")), 1)


def is_16_bit_color_png(file: Image.Image) -> bool:
    """Whether a file is a PNG with 16-bit colors, of which Pillow keeps the upper 8 bits only."""
    parts = (str(part.args) for part in getattr(file, "tile", ()))
    return file.format == "PNG" and any(part.endswith(";16B") and part != "I;16B" for part in parts)


def decode_16_bit_png(file: Path | ImageContent) -> np.ndarray:
    """Decode a PNG with 16-bit colors: (H, W, C) of uint16.

    Raises:
        DataError: When imagecodecs is not installed.
    """
    with requires_extra("depth", f"{file}: 16-bit color PNG", DataError):
        from imagecodecs import png_decode
    return png_decode(file.content if isinstance(file, ImageContent) else file.read_bytes())


def _choose_mode(image: Image.Image, encoding: Encoding) -> str | None:
    """The mode whose bands are the samples; None if the image's mode has no such mode."""
    match image.mode:
        case "P" | "PA" | "YCbCr":
            return "RGBA" if image.has_transparency_data else "RGB"
        case "RGBa":
            return "RGBA"
        case "La":
            return "LA"
        case "1":
            return "L"
        case "L" | "RGB" if encoding.bits and "transparency" in image.info:
            return f"{image.mode}A"
        case "L" | "LA" | "RGB" | "RGBA" | "CMYK":
            return image.mode
    return None


def _read_16_bits(image: Image.Image, encoding: Encoding) -> Samples:
    values = np.asarray(image)
    transparent = image.info.get("transparency")
    if not encoding.bits or not isinstance(transparent, int):
        notes = note_unused_profile(image.info.get("icc_profile"), "L") if encoding.bits else ()
        return Samples(values, 16, notes=notes)
    opacity = np.where(values == transparent, 0, 65535).astype(np.uint16)
    return Samples(np.stack([values, opacity], axis=-1), 16, alpha=True)

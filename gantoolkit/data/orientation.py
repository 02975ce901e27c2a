"""EXIF orientations: the rotation or flip that turns stored pixels upright."""

from typing import Any

import numpy as np
from PIL import ExifTags, Image

__all__ = ["read_orientation", "turn_array", "turn_image"]

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The operation that turns the pixels of each EXIF orientation upright."""


def turn_image(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation of an image; invalid EXIF data does not affect the pixels."""
    orientation = read_orientation(image)
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def read_orientation(image: Image.Image) -> Any:
    """The EXIF orientation of an image, as it is stored; None without a readable one."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation)
    except Exception:
        return None


def turn_array(values: np.ndarray, orientation: Any) -> np.ndarray:
    """Apply an EXIF orientation to values (H, W) or (H, W, C); anything but the numbers 2 to 8 leaves them as they are."""
    match orientation:
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

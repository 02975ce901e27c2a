"""Resize, random crop and flip of training images (Zhu et al. 2017, appendix 7.1)."""

import random
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from gantoolkit.data.encoding import Encoding
from gantoolkit.data.pixels import resize_pixels
from gantoolkit.errors import DataError
from gantoolkit.recipes.settings import DataSettings

__all__ = ["Window", "augment", "compute_size", "draw_window", "prepare", "resize"]


@dataclass(frozen=True)
class Window:
    """The top left corner of a crop in a resized image, in pixels, and whether the crop is flipped."""

    left: int
    top: int
    flipped: bool


def resize(pixels: np.ndarray, settings: DataSettings, encoding: Encoding) -> np.ndarray:
    """Resize an image (H, W, C) for cropping: the deterministic part of augmentation."""
    size = (pixels.shape[1], pixels.shape[0])
    return resize_pixels(pixels, compute_size(size, settings, settings.load_size), encoding)


def augment(pixels: np.ndarray, settings: DataSettings, encoding: Encoding, rng: random.Random) -> Tensor:
    """Crop and perhaps flip a resized image (H, W, C) at random; returns (C, crop_size, crop_size) in [−1, 1].

    Raises:
        DataError: When the image is smaller than the crop.
    """
    side = settings.crop_size
    window = draw_window((pixels.shape[1], pixels.shape[0]), settings, rng)
    crop = pixels[window.top : window.top + side, window.left : window.left + side]
    crop = crop[:, ::-1] if window.flipped else crop
    return encoding.to_floats(crop)


def draw_window(size: tuple[int, int], settings: DataSettings, rng: random.Random) -> Window:
    """Draw a random crop of an image of this width and height.

    Raises:
        DataError: When the image is smaller than the crop.
    """
    _check_size(size, settings)
    left = rng.randint(0, size[0] - settings.crop_size)
    top = rng.randint(0, size[1] - settings.crop_size)
    return Window(left, top, settings.flip and rng.random() < 0.5)


def prepare(pixels: np.ndarray, settings: DataSettings, encoding: Encoding, *, label_map: bool = False) -> Tensor:
    """Resize an image (H, W, C) and take its center crop; returns (C, crop_size, crop_size) in [−1, 1].

    Args:
        label_map: Use nearest-neighbor resampling: the mean of two labels would be the color of a third one.

    Raises:
        DataError: When the image is smaller than the crop.
    """
    side = settings.crop_size
    width, height = compute_size((pixels.shape[1], pixels.shape[0]), settings, side)
    _check_size((width, height), settings)
    left, top = (width - side) // 2, (height - side) // 2
    resized = resize_pixels(pixels, (width, height), encoding, "nearest" if label_map else None)
    return encoding.to_floats(resized[top : top + side, left : left + side])


def compute_size(size: tuple[int, int], settings: DataSettings, side: int) -> tuple[int, int]:
    """The width and height that `settings.resize` gives an image of this width and height, for a target of `side`."""
    if settings.resize == "square":
        return side, side
    if settings.resize == "shorter_side":
        scale = side / min(size)
        return max(side, round(size[0] * scale)), max(side, round(size[1] * scale))
    return size


def _check_size(size: tuple[int, int], settings: DataSettings) -> None:
    if min(size) < settings.crop_size:
        raise DataError(
            f"is {size[0]}×{size[1]}, smaller than data.crop_size {settings.crop_size}; "
            'set data.resize = "shorter_side"'
        )

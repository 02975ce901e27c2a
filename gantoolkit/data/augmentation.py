"""Resize, crop, flip (Zhu et al. 2017, appendix 7.1): what a training image goes through, from draws that are given."""

import random
from dataclasses import dataclass

import numpy as np
from PIL import Image
from torch import Tensor

from gantoolkit.data.encoding import Encoding
from gantoolkit.data.pixels import resize_pixels
from gantoolkit.errors import DataError
from gantoolkit.recipes.settings import DataSettings

__all__ = ["Window", "augment", "draw_window", "find_size", "prepare", "resize"]


@dataclass(frozen=True)
class Window:
    """Where a crop lies in a resized image, in pixels, and whether it is mirrored."""

    left: int
    top: int
    mirrored: bool


def resize(pixels: np.ndarray, settings: DataSettings, encoding: Encoding) -> np.ndarray:
    """An image (H, W, C) as crops are taken from it: all that happens to it before something is drawn."""
    size = (pixels.shape[1], pixels.shape[0])
    return resize_pixels(pixels, find_size(size, settings, settings.load_size), encoding)


def augment(pixels: np.ndarray, settings: DataSettings, encoding: Encoding, draws: random.Random) -> Tensor:
    """A random crop of a resized image (H, W, C), perhaps mirrored: (C, crop_size, crop_size) in [−1, 1].

    Raises:
        DataError: When the image is smaller than the crop.
    """
    side = settings.crop_size
    window = draw_window((pixels.shape[1], pixels.shape[0]), settings, draws)
    crop = pixels[window.top : window.top + side, window.left : window.left + side]
    crop = crop[:, ::-1] if window.mirrored else crop
    return encoding.to_floats(crop)


def draw_window(size: tuple[int, int], settings: DataSettings, draws: random.Random) -> Window:
    """Draw a crop of an image of this width and height.

    Raises:
        DataError: When the image is smaller than the crop.
    """
    _refuse_small(size, settings)
    left = draws.randint(0, size[0] - settings.crop_size)
    top = draws.randint(0, size[1] - settings.crop_size)
    return Window(left, top, settings.flip and draws.random() < 0.5)


def prepare(pixels: np.ndarray, settings: DataSettings, encoding: Encoding, *, label_map: bool = False) -> Tensor:
    """The middle of an image (H, W, C) as it is looked at while training: no draw, (C, crop_size, crop_size) in [−1, 1].

    Args:
        label_map: Resize without mixing neighbors, whose mean would be the color of a third label.

    Raises:
        DataError: When the image is smaller than the crop.
    """
    resample = Image.Resampling.NEAREST if label_map else Image.Resampling.BICUBIC
    side = settings.crop_size
    width, height = find_size((pixels.shape[1], pixels.shape[0]), settings, side)
    _refuse_small((width, height), settings)
    left, top = (width - side) // 2, (height - side) // 2
    resized = resize_pixels(pixels, (width, height), encoding, resample)
    return encoding.to_floats(resized[top : top + side, left : left + side])


def find_size(size: tuple[int, int], settings: DataSettings, side: int) -> tuple[int, int]:
    """Width and height to which an image of this width and height is resized, where `side` is asked for."""
    if settings.resize == "square":
        return side, side
    if settings.resize == "shorter_side":
        scale = side / min(size)
        return max(side, round(size[0] * scale)), max(side, round(size[1] * scale))
    return size


def _refuse_small(size: tuple[int, int], settings: DataSettings) -> None:
    if min(size) < settings.crop_size:
        raise DataError(
            f"is {size[0]}×{size[1]}, smaller than data.crop_size {settings.crop_size}; "
            'set data.resize = "shorter_side"'
        )

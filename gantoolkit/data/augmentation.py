"""Resize, random crop and flip of training images (Zhu et al. 2017, appendix 7.1)."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from gantoolkit.data.encoding import Encoding
from gantoolkit.data.pixels import resize_pixels
from gantoolkit.errors import DataError
from gantoolkit.recipes.settings import DataSettings

__all__ = [
    "MAX_PAIR_DIFFERENCE",
    "Window",
    "check_crop_fits",
    "check_pair",
    "compute_size",
    "crop_pixels",
    "draw_windows",
    "prepare",
    "prepared_size",
    "resize",
    "sizes_match",
]

MAX_PAIR_DIFFERENCE = 0.02
"""The largest difference between the widths, or the heights, of the images of a pair, as a share of the larger one."""


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


def crop_pixels(pixels: np.ndarray, window: Window, settings: DataSettings, encoding: Encoding) -> Tensor:
    """Crop a resized image (H, W, C), and flip the crop if the window says so.

    Returns:
        (C, crop_size, crop_size) in [−1, 1].
    """
    side = settings.crop_size
    values = pixels[window.top : window.top + side, window.left : window.left + side]
    return encoding.to_floats(values[:, ::-1] if window.flipped else values)


def draw_windows(sizes: Sequence[tuple[int, int]], settings: DataSettings, rng: random.Random) -> list[Window]:
    """Draw a random crop, at the same place of each of some images: of a single image, or of the images of a pair.

    The offsets of the first image are drawn. Those of the others are the same shares of their free ranges, so that images of
    equal sizes have equal windows.

    Args:
        sizes: The width and height of each image, at least as large as the crop.
    """
    free = [(width - settings.crop_size, height - settings.crop_size) for width, height in sizes]
    left, top = rng.randint(0, free[0][0]), rng.randint(0, free[0][1])
    flipped = settings.flip and rng.random() < 0.5
    return [
        Window(_scale_offset(left, free[0][0], width), _scale_offset(top, free[0][1], height), flipped)
        for width, height in free
    ]


def _scale_offset(offset: int, free: int, other: int) -> int:
    """The offset that is the same share of another free range, rounded; the center if the first range is empty."""
    return (2 * offset * other + free) // (2 * free) if free else other // 2


def prepare(pixels: np.ndarray, settings: DataSettings, encoding: Encoding, *, label_map: bool = False) -> Tensor:
    """Resize an image (H, W, C) and take its center crop; returns (C, crop_size, crop_size) in [−1, 1].

    Args:
        label_map: Use nearest-neighbor resampling: the mean of two labels would be the color of a third one.

    Raises:
        DataError: When the image is smaller than the crop.
    """
    side = settings.crop_size
    width, height = prepared_size(pixels, settings)
    check_crop_fits((width, height), settings)
    left, top = (width - side) // 2, (height - side) // 2
    resized = resize_pixels(pixels, (width, height), encoding, "nearest" if label_map else None)
    return encoding.to_floats(resized[top : top + side, left : left + side])


def prepared_size(pixels: np.ndarray, settings: DataSettings) -> tuple[int, int]:
    """The width and height to which `prepare` resizes an image (H, W, C)."""
    return compute_size((pixels.shape[1], pixels.shape[0]), settings, settings.crop_size)


def compute_size(size: tuple[int, int], settings: DataSettings, side: int) -> tuple[int, int]:
    """The width and height that `settings.resize` gives an image of this width and height, for a target of `side`."""
    if settings.resize == "square":
        return side, side
    if settings.resize == "shorter_side":
        scale = side / min(size)
        return max(side, round(size[0] * scale)), max(side, round(size[1] * scale))
    return size


def check_crop_fits(size: tuple[int, int], settings: DataSettings) -> None:
    """Check that a resized image of this width and height is not smaller than the crop.

    Raises:
        DataError: When it is; the message is a sentence without its subject.
    """
    if min(size) < settings.crop_size:
        raise DataError(
            f"is {size[0]}×{size[1]}, smaller than data.crop_size {settings.crop_size}; "
            'set data.resize = "shorter_side"'
        )


def check_pair(size: tuple[int, int], partner: str, partner_size: tuple[int, int], settings: DataSettings) -> None:
    """Check that the resized images of a pair have the same size, apart from rounding.

    Args:
        size: The width and height of the first image.
        partner: The name of the second image.
        partner_size: Its width and height.

    Raises:
        DataError: When they do not; the message is a sentence without its subject, the first image.
    """
    if not sizes_match(size, partner_size):
        raise DataError(
            f'is {size[0]}×{size[1]} with data.resize = "{settings.resize}", and its partner {partner} is '
            f"{partner_size[0]}×{partner_size[1]}, so that their crops would not show the same place; set "
            'data.resize = "square", or make pairs of equal sizes with `gantoolkit data pair --resize`'
        )


def sizes_match(size: tuple[int, int], partner_size: tuple[int, int]) -> bool:
    """Whether the sizes of two resized images differ by rounding at most: by a pixel or `MAX_PAIR_DIFFERENCE` on each side."""
    sides = zip(size, partner_size, strict=True)
    return all(abs(one - other) <= max(1, MAX_PAIR_DIFFERENCE * max(one, other)) for one, other in sides)

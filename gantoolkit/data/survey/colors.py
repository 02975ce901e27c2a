"""Recognize label maps: lossless images with few colors in large areas."""

from dataclasses import dataclass, field

import numpy as np

from gantoolkit.data.images import ImageFile

__all__ = ["ColorCount"]

_LOSSY = (".jpg", ".jpeg", ".jpe", ".jfif")
_MAX_IMAGES = 50
_MAX_COLORS = 256
_MAX_COLORS_OF_IMAGE = 64  # a photograph has more gray levels, an animation of the web more colors
_MIN_EQUAL_NEIGHBORS = 0.5
_BYTES_OF_CODE = 8


@dataclass
class ColorCount:
    """The colors of a domain, over its first images.

    Args:
        colors: All colors, each as the number that its bytes form.
        images: The number of images.
        is_label_map: Whether each image has few colors, in large areas.
    """

    colors: set[int] = field(default_factory=set)
    images: int = 0
    is_label_map: bool = True

    def add(self, file: ImageFile, pixels: np.ndarray) -> None:
        """Count the colors of an image (H, W, C). An image of a single color does not count."""
        if not self.is_label_map or self.images >= _MAX_IMAGES:
            return
        if file.path.suffix.lower() in _LOSSY or pixels.shape[2] * pixels.dtype.itemsize > _BYTES_OF_CODE:
            self.is_label_map = False
            return
        colors = _find_colors(pixels)
        if len(colors) < 2:
            return
        self.images += 1
        self.colors |= colors
        few = len(colors) <= _MAX_COLORS_OF_IMAGE and len(self.colors) <= _MAX_COLORS
        self.is_label_map = few and _share_of_equal_neighbors(pixels) >= _MIN_EQUAL_NEIGHBORS


def _find_colors(pixels: np.ndarray) -> set[int]:
    """The colors of an image; only some of them if it has too many for a label map."""
    size = pixels.shape[2] * pixels.dtype.itemsize
    colors: np.ndarray = np.empty(0)
    for step in (8, 1):  # a coarse grid shows a photograph fast
        coarse = np.ascontiguousarray(pixels[::step, ::step])
        padded = np.zeros((*coarse.shape[:2], _BYTES_OF_CODE), dtype=np.uint8)
        padded[..., :size] = coarse.view(np.uint8).reshape(*coarse.shape[:2], size)
        colors = np.unique(padded.view(np.uint64))
        if len(colors) > _MAX_COLORS_OF_IMAGE:
            break
    return set(colors.tolist())


def _share_of_equal_neighbors(pixels: np.ndarray) -> float:
    if pixels.shape[1] < 2:
        return 0.0
    return float((pixels[:, 1:] == pixels[:, :-1]).all(axis=2).mean())

"""The images with which an exported file is verified."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from gantoolkit.data import find_images
from gantoolkit.data.images import ImageFile
from gantoolkit.data.pixels import read_pixels
from gantoolkit.errors import DataError
from gantoolkit.export.description import smallest_size_of
from gantoolkit.recipes.building import size_multiple_of
from gantoolkit.runs import LoadedGenerator

__all__ = ["make_batches", "smooth_images"]

_MOST_IMAGES = 2
_LARGEST_SIDE = 256


def make_batches(generator: LoadedGenerator, sources: Sequence[str | Path | ImageFile]) -> tuple[list[Tensor], str]:
    """Make three batches (N, C, H, W) in [−1, 1] (one square image, two wide, one tall), and describe them in words.

    Args:
        sources: Image files and folders, of which the first two images are used; by default, synthetic images are used.

    Raises:
        DataError: When there is no image, or one cannot be read.
    """
    encoding = generator.source
    if sources:
        files = _find(sources)
        images = [encoding.to_floats(read_pixels(file, encoding))[None] for file in files]
        description = ", ".join(str(file) for file in files)
    else:
        images = smooth_images(encoding.channels)
        description = "synthetic smooth images, as no images were given"
    multiple, smallest = size_multiple_of(generator.network), smallest_size_of(generator)
    side = max(smallest, min(generator.recipe.data.crop_size, _LARGEST_SIDE) // multiple * multiple)
    longer = side + -(-side // 2 // multiple) * multiple
    first, last = images[0], images[-1]
    return [
        _resize(first, side, side),
        torch.cat([_resize(first, side, longer), _resize(last, side, longer)]),
        _resize(last, longer, side),
    ], description


def smooth_images(channels: int) -> list[Tensor]:
    """Two fixed images with smooth shapes, (1, channels, 64, 64) in [−1, 1]."""
    random = torch.Generator().manual_seed(0)
    coarse = torch.rand(_MOST_IMAGES, channels, 6, 6, generator=random) * 2 - 1
    return list(_resize(coarse, 64, 64).split(1))


def _find(sources: Sequence[str | Path | ImageFile]) -> list[ImageFile]:
    files: list[ImageFile] = []
    for source in map(ImageFile.of, sources):
        if not source.path.exists():
            raise DataError(f"{source}: no such file or folder")
        files += map(ImageFile, find_images(source.path)) if source.path.is_dir() else [source]
    return files[:_MOST_IMAGES]


def _resize(images: Tensor, height: int, width: int) -> Tensor:
    resized = functional.interpolate(images, (height, width), mode="bicubic", antialias=True, align_corners=False)
    return resized.clamp(-1, 1)

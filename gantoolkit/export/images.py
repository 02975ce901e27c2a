"""The images on which an exported file is tried."""

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

__all__ = ["make_batches", "smooth_pictures"]

_MOST_IMAGES = 2
_LARGEST_SIDE = 256


def make_batches(generator: LoadedGenerator, sources: Sequence[str | Path | ImageFile]) -> tuple[list[Tensor], str]:
    """One square, two that are wide, one that is high: (N, C, H, W) in [−1, 1], and what they show, in words.

    Args:
        sources: Image files and folders, of which the first images are taken; with none, pictures are made.

    Raises:
        DataError: When there is no image, or one cannot be read.
    """
    encoding = generator.source
    if sources:
        files = _find(sources)
        pictures = [encoding.to_floats(read_pixels(file, encoding))[None] for file in files]
        shown = ", ".join(str(file) for file in files)
    else:
        pictures = smooth_pictures(encoding.channels)
        shown = "smooth pictures made for it, as there were no images"
    multiple, smallest = size_multiple_of(generator.network), smallest_size_of(generator)
    side = max(smallest, min(generator.recipe.data.crop_size, _LARGEST_SIDE) // multiple * multiple)
    longer = side + -(-side // 2 // multiple) * multiple
    first, last = pictures[0], pictures[-1]
    return [
        _resize(first, side, side),
        torch.cat([_resize(first, side, longer), _resize(last, side, longer)]),
        _resize(last, longer, side),
    ], shown


def smooth_pictures(channels: int) -> list[Tensor]:
    """Two pictures with soft shapes, (1, channels, 64, 64) in [−1, 1]; the same each time."""
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


def _resize(pictures: Tensor, height: int, width: int) -> Tensor:
    made = functional.interpolate(pictures, (height, width), mode="bicubic", antialias=True, align_corners=False)
    return made.clamp(-1, 1)

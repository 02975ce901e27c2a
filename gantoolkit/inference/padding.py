"""Reflection padding, on the right and below, for images of a size that a network does not accept."""

import numpy as np
from torch import Tensor, nn
from torch.nn import functional

from gantoolkit.plugins import NetworkTraits, read_traits
from gantoolkit.recipes.building import size_multiple_of

__all__ = ["acceptable_size", "mirror_pad", "mirrored_indices"]


def acceptable_size(size: tuple[int, int], network: nn.Module) -> tuple[int, int]:
    """The smallest height and width, at least those of the image, that a network accepts."""
    multiple = size_multiple_of(network)
    smallest = read_traits(network, NetworkTraits).smallest_size
    height, width = (max(side + -side % multiple, smallest) for side in size)
    return height, width


def mirror_pad(images: Tensor, network: nn.Module) -> Tensor:
    """Pad images (N, C, H, W) by reflection to a size that the network accepts."""
    height, width = images.shape[-2:]
    padded_size = list(acceptable_size((height, width), network))
    while list(images.shape[-2:]) != padded_size:
        # One reflection adds at most side - 1 pixels, so a small image needs several.
        gaps = [min(goal - side, side - 1) for goal, side in zip(padded_size, images.shape[-2:], strict=True)]
        if gaps == [0, 0]:  # a side of one pixel cannot be reflected
            below, right = (goal - side for goal, side in zip(padded_size, images.shape[-2:], strict=True))
            return functional.pad(images, (0, right, 0, below), mode="replicate")
        images = functional.pad(images, (0, gaps[1], 0, gaps[0]), mode="reflect")
    return images


def mirrored_indices(size: tuple[int, int], network: nn.Module) -> tuple[np.ndarray, np.ndarray]:
    """Row and column indices that pad an image as `mirror_pad` does, without copying all of it."""
    rows, columns = (
        np.pad(np.arange(side), (0, goal - side), mode="reflect")
        for side, goal in zip(size, acceptable_size(size, network), strict=True)
    )
    return rows, columns

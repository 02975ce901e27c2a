"""Sizes that a network cannot take: an image is continued by its mirror image, to the right and below."""

import numpy as np
from torch import Tensor, nn
from torch.nn import functional

from gantoolkit.plugins import NetworkTraits, read_traits
from gantoolkit.recipes.building import size_multiple_of

__all__ = ["acceptable_size", "mirror_pad", "mirrored_places"]


def acceptable_size(size: tuple[int, int], network: nn.Module) -> tuple[int, int]:
    """The smallest height and width that a network takes and an image of that size fits in."""
    multiple = size_multiple_of(network)
    smallest = read_traits(network, NetworkTraits).smallest_size
    height, width = (max(side + -side % multiple, smallest) for side in size)
    return height, width


def mirror_pad(images: Tensor, network: nn.Module) -> Tensor:
    """Continue images (N, C, H, W) until the network can take their sides."""
    height, width = images.shape[-2:]
    wanted = list(acceptable_size((height, width), network))
    while list(images.shape[-2:]) != wanted:
        # A mirror shows at most all of the image but its last line, so a small image needs several.
        gaps = [min(goal - side, side - 1) for goal, side in zip(wanted, images.shape[-2:], strict=True)]
        if gaps == [0, 0]:  # a side of one pixel has nothing else to show
            below, right = (goal - side for goal, side in zip(wanted, images.shape[-2:], strict=True))
            return functional.pad(images, (0, right, 0, below), mode="replicate")
        images = functional.pad(images, (0, gaps[1], 0, gaps[0]), mode="reflect")
    return images


def mirrored_places(size: tuple[int, int], network: nn.Module) -> tuple[np.ndarray, np.ndarray]:
    """Which rows and columns of an image of that size `mirror_pad` shows where: the same without a padded copy."""
    rows, columns = (
        np.pad(np.arange(side), (0, goal - side), mode="reflect")
        for side, goal in zip(size, acceptable_size(size, network), strict=True)
    )
    return rows, columns

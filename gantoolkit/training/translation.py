"""One call of a generator as it translates: what it draws at random is the same each time."""

import torch
from torch import Tensor, nn

from gantoolkit.plugins import NetworkTraits, read_traits
from gantoolkit.runtime.randomness import isolated_random_state, seed_everything

__all__ = ["run_generator"]

_SEED = 0
"""Of the numbers that a generator may draw when it translates."""


def run_generator(network: nn.Module, images: Tensor) -> Tensor:
    """Translate (N, C, H, W) in [−1, 1] on its device; one that is `stochastic` gets the same numbers for every image."""
    if not read_traits(network, NetworkTraits).stochastic:
        return network(images)
    made = []
    with isolated_random_state(images.device):
        for image in images:
            seed_everything(_SEED)
            made.append(network(image[None]))
    return torch.cat(made)

"""Run a generator to translate, with random numbers that are the same each time."""

import torch
from torch import Tensor, nn

from gantoolkit.plugins import NetworkTraits, read_traits
from gantoolkit.runtime.randomness import isolated_random_state, seed_everything

__all__ = ["run_generator"]

_SEED = 0
"""The seed of a stochastic generator when it translates."""


def run_generator(network: nn.Module, images: Tensor) -> Tensor:
    """Translate images (N, C, H, W) in [−1, 1]; a `stochastic` generator gets the same random numbers for every image."""
    if not read_traits(network, NetworkTraits).stochastic:
        return network(images)
    results = []
    with isolated_random_state(images.device):
        for image in images:
            seed_everything(_SEED)
            results.append(network(image[None]))
    return torch.cat(results)

"""Recipes, trainers and images that the checks use."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from gantoolkit.plugins import Batch
from gantoolkit.recipes import Recipe, cyclegan
from gantoolkit.runtime.precision import Precision, backend_flags
from gantoolkit.training import Trainer, build_trainer

__all__ = ["CUDA", "SMALL", "build_on_cuda", "fixed_flags", "lively_recipe", "random_images"]

CUDA = torch.device("cuda")
SMALL = {
    "generator.width": 8,
    "generator.blocks": 2,
    "discriminator.width": 8,
    "data.load_size": 32,
    "data.crop_size": 32,
}
"""Settings of a rehearsal."""


def lively_recipe(side: int = 64) -> Recipe:
    """CycleGAN with small networks, dropout, identity terms and a high learning rate: every source of randomness is used."""
    return cyclegan(identity_weight=5.0).swap(
        {
            "generator": {"name": "resnet", "width": 16, "blocks": 2, "dropout": 0.5},
            "discriminator": {"name": "patchgan", "width": 16, "layers": 1},
            "optimizer.lr": 2e-3,
            "image_pool.size": 3,
            "data.load_size": side,
            "data.crop_size": side,
        }
    )


def build_on_cuda(recipe: Recipe, changes: Mapping[str, Any] | None = None, *, double: bool = False) -> Trainer:
    trainer = build_trainer(recipe.swap(dict(changes or {})).resolve(), CUDA)
    for network in trainer.system.networks.values() if double else ():
        network.double()
    return trainer


def random_images(recipe: Recipe, seed: int, dtype: torch.dtype = torch.float32) -> Batch:
    """A batch of random images on the device."""
    generator = torch.Generator().manual_seed(seed)
    side, count = recipe.data.crop_size, recipe.training.batch_size
    channels = {"A": recipe.data.channels_A, "B": recipe.data.channels_B}
    return {
        domain: (torch.rand(count, channels[domain], side, side, generator=generator, dtype=dtype) * 2 - 1).to(CUDA)
        for domain in "AB"
    }


@contextmanager
def fixed_flags(precision: Precision) -> Iterator[None]:
    with backend_flags(precision, try_algorithms=False):
        yield

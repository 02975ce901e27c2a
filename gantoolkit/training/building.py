"""From a resolved recipe to its trainer: networks with their first weights, on their device, and how they are optimised."""

import torch

from gantoolkit.assembly import build_system, initialize
from gantoolkit.block import bind
from gantoolkit.recipe import Recipe
from gantoolkit.training.trainer import Trainer

__all__ = ["build_trainer"]


def build_trainer(recipe: Recipe, device: torch.device) -> Trainer:
    """The trainer of a resolved recipe, as a run starts with it.

    Args:
        device: Where the networks are; on `meta` they are without memory, and their weights are not drawn.

    Raises:
        RecipeError: When its blocks do not fit together.
    """
    with torch.device("meta" if device.type == "meta" else "cpu"):
        system = build_system(recipe)
    if device.type != "meta":
        initialize(system, recipe)
    for network in system.networks.values():
        network.to(device).train()
    return Trainer(
        system,
        optimizer=bind("optimizers", recipe.optimizer),
        scheduler=bind("schedulers", recipe.scheduler)(),
        epochs=recipe.training.epochs,
    )

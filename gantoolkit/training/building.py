"""From a resolved recipe to its trainer: networks with their first weights, on their device, and how they are optimised."""

import torch

from gantoolkit.assembly import build_system, initialize
from gantoolkit.block import bind
from gantoolkit.layout import arrange, memory_format_of
from gantoolkit.precision import Precision, choose_precision, compute_in
from gantoolkit.recipe import Recipe
from gantoolkit.seeds import derive_seed
from gantoolkit.training.processes import ALONE, Processes
from gantoolkit.training.trainer import Trainer

__all__ = ["build_trainer", "settle_precision"]


def settle_precision(recipe: Recipe, device: torch.device) -> Precision:
    """What networks compute in on a device: what the recipe says, or what `auto` comes to there."""
    wanted = recipe.training.precision
    return choose_precision(device) if wanted == "auto" else wanted


def build_trainer(
    recipe: Recipe,
    device: torch.device,
    precision: Precision | None = None,
    processes: Processes = ALONE,
) -> Trainer:
    """The trainer of a resolved recipe, as a run starts with it.

    Args:
        device: Where the networks are; on `meta` they are without memory, and their weights are not drawn.
        precision: What networks compute in, where that was settled before.
        processes: Those that share the run.

    Raises:
        RecipeError: When its blocks do not fit together.
    """
    precision = precision or settle_precision(recipe, device)
    with torch.device("meta" if device.type == "meta" else "cpu"), torch.random.fork_rng(devices=[]):
        # What layers draw as they are made and no initialiser draws again: the vectors of spectral norm, for one.
        torch.manual_seed(derive_seed(recipe.training.seed, "build"))
        system = build_system(recipe, processes.number)
    if device.type != "meta":
        initialize(system, recipe)
    memory_format = memory_format_of(precision, device)
    for network in system.networks.values():
        network.to(device).train()
        arrange(network, memory_format)
        compute_in(precision, network, device)
        if recipe.training.compile:
            network.compile()
    return Trainer(
        system,
        optimizer=bind("optimizers", recipe.optimizer),
        scheduler=bind("schedulers", recipe.scheduler)(),
        epochs=recipe.training.epochs,
        precision=precision,
        memory_format=memory_format,
        processes=processes,
    )

"""From a resolved recipe to its trainer: networks with their first weights, on their device, and how they are optimized."""

import torch

from gantoolkit.plugins import NetworkTraits, read_traits
from gantoolkit.recipes import Recipe
from gantoolkit.recipes.block_spec import bind
from gantoolkit.recipes.building import build_system, initialize
from gantoolkit.runtime.memory_format import memory_format_of, set_memory_format
from gantoolkit.runtime.precision import Precision, choose_precision, compute_in
from gantoolkit.runtime.seeds import derive_seed
from gantoolkit.training.distributed import SINGLE_PROCESS, ProcessGroup
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
    process_group: ProcessGroup = SINGLE_PROCESS,
) -> Trainer:
    """The trainer of a resolved recipe, as a run starts with it.

    Args:
        device: Where the networks are; on `meta` they are without memory, and their weights are not drawn.
        precision: What networks compute in, where that was settled before.
        process_group: Those that share the run.

    Raises:
        RecipeError: When its blocks do not fit together.
    """
    precision = precision or settle_precision(recipe, device)
    with torch.device("meta" if device.type == "meta" else "cpu"), torch.random.fork_rng(devices=[]):
        # What layers draw as they are made and no initializer draws again: the vectors of spectral norm, for one.
        torch.manual_seed(derive_seed(recipe.training.seed, "build"))
        system = build_system(recipe, process_group.rank)
    if device.type != "meta":
        initialize(system, recipe)
    memory_format = memory_format_of(precision, device)
    for network in system.networks.values():
        network.to(device).train()
        set_memory_format(network, memory_format, supported=read_traits(network, NetworkTraits).channels_last)
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
        process_group=process_group,
    )

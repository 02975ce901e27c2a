"""Build the trainer of a resolved recipe: networks with their initial weights on their device, and their optimizers."""

import torch

from gantoolkit.layers.convolution import set_convolution
from gantoolkit.plugins import NetworkTraits, read_traits
from gantoolkit.recipes import Recipe
from gantoolkit.recipes.block_spec import bind
from gantoolkit.recipes.building import build_meta_system, build_system, initialize
from gantoolkit.runtime.arithmetic import Arithmetic, choose_arithmetic
from gantoolkit.runtime.memory_format import memory_format_of, set_memory_format
from gantoolkit.runtime.precision import set_precision
from gantoolkit.runtime.seeds import derive_seed
from gantoolkit.training.distributed import SINGLE_PROCESS, ProcessGroup
from gantoolkit.training.trainer import Trainer

__all__ = ["build_trainer", "settle_arithmetic"]


def settle_arithmetic(recipe: Recipe, device: torch.device) -> Arithmetic:
    """The arithmetic of a resolved recipe's networks on a device. On a CPU, this may time convolutions for a second."""
    system = build_meta_system(recipe) if device.type == "cpu" else None
    return choose_arithmetic(recipe.training.precision, device, system.networks.values() if system else None)


def build_trainer(
    recipe: Recipe,
    device: torch.device,
    arithmetic: Arithmetic | None = None,
    process_group: ProcessGroup = SINGLE_PROCESS,
) -> Trainer:
    """The trainer of a resolved recipe, as a run starts with it.

    Args:
        device: The device of the networks. On the meta device, weights are not initialized.
        arithmetic: The arithmetic of the networks, if it was chosen before.
        process_group: The processes that share the run.

    Raises:
        RecipeError: When its blocks do not fit together.
    """
    arithmetic = arithmetic or settle_arithmetic(recipe, device)
    precision = arithmetic.precision
    with torch.device("meta" if device.type == "meta" else "cpu"), torch.random.fork_rng(devices=[]):
        # For random values that layers draw when they are built and no initializer overwrites, such as those of spectral norm.
        torch.manual_seed(derive_seed(recipe.training.seed, "build"))
        system = build_system(recipe, process_group.rank)
    if device.type != "meta":
        initialize(system, recipe)
    memory_format = memory_format_of(precision, device)
    for network in system.networks.values():
        network.to(device).train()
        traits = read_traits(network, NetworkTraits)
        set_memory_format(network, memory_format, supported=traits.channels_last)
        set_convolution(network, arithmetic.convolution)
        set_precision(precision, network, device, shares_weights=traits.narrow_weights)
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

"""Build the system of a resolved recipe: on a device with initial weights, or on the meta device to check shapes."""

import contextlib
from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)

from gantoolkit.errors import RecipeError, first_line
from gantoolkit.plugins import Direction, NetworkTraits, Pairing, System, SystemContext, read_traits
from gantoolkit.recipes.block_spec import BlockSpec, bind
from gantoolkit.recipes.settings import DataSettings, TrainingSettings
from gantoolkit.runtime.seeds import derive_seed

__all__ = [
    "MAX_MODULES",
    "build_meta_system",
    "build_system",
    "check_shapes",
    "initialize",
    "pairing_of",
    "size_multiple_of",
]

MAX_MODULES = 20_000
"""Limit on the modules, and on the parameters, of a system; so many take seconds to build. CycleGAN has 300 modules."""


class ResolvedRecipe(Protocol):
    """The fields of a resolved `Recipe`, which imports this module to check itself."""

    name: str
    system: BlockSpec
    optimizer: BlockSpec
    scheduler: BlockSpec
    initializer: BlockSpec
    metric: BlockSpec
    data: DataSettings
    training: TrainingSettings


def build_system(recipe: ResolvedRecipe, rank: int = 0) -> System:
    """Build the system of a resolved recipe on the default device, with the default weights of its layers.

    Args:
        rank: The rank of this process.

    Raises:
        RecipeError: When its blocks do not fit together.
    """
    data, seed = recipe.data, recipe.training.seed
    context = SystemContext(data.channels_A, data.channels_B, seed, data.crop_size, rank)
    try:
        with _counting_modules():
            return bind("systems", recipe.system)(context)
    except (ValueError, TypeError) as error:
        raise RecipeError(f"{recipe.name}: {error}") from error
    except (RuntimeError, OverflowError, MemoryError) as error:
        if not _is_too_large(error):
            raise
        raise RecipeError(f"{recipe.name}: its networks are too large ({first_line(error)})") from error


def pairing_of(recipe: ResolvedRecipe) -> Pairing:
    """How the system of a recipe wants its images paired. Nothing is built: it is an attribute of the class."""
    pairing: Pairing | None = getattr(recipe.system.load("systems"), "pairing", None)
    if pairing is None:
        raise RecipeError(f"{recipe.name}: system '{recipe.system.name}' has no class attribute 'pairing'")
    return pairing


def build_meta_system(recipe: ResolvedRecipe) -> System | None:
    """The system of a resolved recipe on the meta device; None if a block needs values when it is built.

    Raises:
        RecipeError: As for `build_system`.
    """
    try:
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            return build_system(recipe)
    except RuntimeError as error:  # NotImplementedError, too
        if _needs_values(error):
            return None
        raise


@contextlib.contextmanager
def _counting_modules() -> Iterator[None]:
    """Refuse networks with too many modules: a number in a recipe can ask for any size, which takes time even on `meta`."""
    counts = {"modules": 0, "tensors": 0}

    def count(what: str) -> None:
        counts[what] += 1
        if counts[what] > MAX_MODULES:
            raise ValueError(f"its networks would have more than {MAX_MODULES:,} {what}; use fewer layers")

    # Layers may be collected in a list before they are added to a module: parameters are counted too.
    hooks = (
        register_module_module_registration_hook(lambda *_: count("modules")),
        register_module_parameter_registration_hook(lambda *_: count("tensors")),
    )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def initialize(system: System, recipe: ResolvedRecipe) -> None:
    """Initialize the weights of every network, each from the seed and its own name."""
    initializer = bind("initializers", recipe.initializer)()
    for name, network in system.networks.items():
        initializer(network, torch.Generator().manual_seed(derive_seed(recipe.training.seed, "initialize", name)))


def size_multiple_of(network: nn.Module) -> int:
    """The `size_multiple` of a generator.

    Raises:
        RecipeError: When it does not declare one.
    """
    multiple = read_traits(network, NetworkTraits).size_multiple
    if not isinstance(multiple, int) or multiple < 1:
        raise RecipeError(
            f"generator {type(network).__name__}: its 'size_multiple' is {multiple!r}; an int ≥ 1 is needed"
        )
    return multiple


def check_shapes(recipe: ResolvedRecipe) -> None:
    """Build the networks on the meta device and run them on one crop.

    Raises:
        RecipeError: When a network does not accept the crop, or returns a wrong shape.
    """
    bind("optimizers", recipe.optimizer)([nn.Parameter(torch.zeros(1))])
    bind("schedulers", recipe.scheduler)()
    bind("initializers", recipe.initializer)()
    if recipe.training.evaluate_every:
        bind("metrics", recipe.metric)()
    data = recipe.data
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        system = build_system(recipe)
        crop = {
            domain: torch.zeros(2, channels, data.crop_size, data.crop_size)
            for domain, channels in (("A", data.channels_A), ("B", data.channels_B))
        }
        for direction, network in system.directions.items():
            name = next((name for name, other in system.networks.items() if other is network), direction)
            _check_translation(
                recipe, network, crop[Direction(direction).source], crop[Direction(direction).target].shape[1], name
            )
        try:
            shared = system.forward(crop)
            for phase in system.phases:
                phase.losses(crop, shared)
        except (RuntimeError, ValueError) as error:
            if _needs_values(error):
                return
            raise RecipeError(
                f"{recipe.name}: its networks do not accept crops of {data.crop_size}×{data.crop_size} "
                f"(data.crop_size): {first_line(error)}; use larger crops, or networks with fewer layers"
            ) from error


def _check_translation(recipe: ResolvedRecipe, network: nn.Module, crop: Tensor, channels: int, name: str) -> None:
    side = recipe.data.crop_size
    multiple = size_multiple_of(network)
    if side % multiple:
        below = side - side % multiple
        better = f"{below} or {below + multiple}" if below else f"{multiple}"
        raise RecipeError(
            f"{recipe.name}: data.crop_size is {side}, but {name} accepts only multiples of {multiple}; set it to {better}"
        )
    try:
        shape = tuple(network(crop).shape)
    except (RuntimeError, ValueError) as error:
        if _needs_values(error):
            return
        raise RecipeError(
            f"{recipe.name}: {name} does not accept crops of {side}×{side}: {first_line(error)}"
        ) from error
    expected = (len(crop), channels, side, side)
    if shape != expected:
        raise RecipeError(f"{recipe.name}: {name} returns images of shape {shape} for a crop; {expected} is needed")


def _needs_values(error: Exception) -> bool:
    """Whether a block asked for a value, which meta tensors do not have, so that it cannot be checked."""
    return "meta tensor" in str(error) or "Meta tensor" in str(error)


def _is_too_large(error: Exception) -> bool:
    words = ("overflow", "allocate", "out of memory")
    return not isinstance(error, RuntimeError) or any(word in str(error).lower() for word in words)

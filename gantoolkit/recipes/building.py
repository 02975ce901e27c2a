"""From a resolved recipe to networks: build its system, draw the first weights, or check the shapes without memory."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)

from gantoolkit.errors import RecipeError
from gantoolkit.plugins import Direction, NetworkTraits, System, SystemContext, read_traits
from gantoolkit.recipes.block_spec import bind
from gantoolkit.runtime.seeds import derive_seed

if TYPE_CHECKING:
    from gantoolkit.recipes.recipe import Recipe

__all__ = ["MAX_MODULES", "build_meta_system", "build_system", "check_shapes", "initialize", "size_multiple_of"]

MAX_MODULES = 20_000
"""And tensors, of all the networks of a system together; they take seconds to build. Those of CycleGAN have 300 modules."""


def build_system(recipe: "Recipe", rank: int = 0) -> System:
    """Make the system of a resolved recipe on the default device; its weights are whatever its layers start with.

    Args:
        rank: Which of the processes that share the run asks for it.

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
        raise RecipeError(f"{recipe.name}: its networks are too large ({_first_line(error)})") from error


def build_meta_system(recipe: "Recipe") -> System | None:
    """The system of a resolved recipe without memory for its weights; None where a block looks at values as it is made.

    Raises:
        RecipeError: As `build_system`.
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
    """Stop networks that would never be whole: a number in a recipe is quickly written, and costs time even without memory."""
    made = {"modules": 0, "tensors": 0}

    def count(what: str) -> None:
        made[what] += 1
        if made[what] > MAX_MODULES:
            raise ValueError(f"its networks would have more than {MAX_MODULES:,} {what}; let them have fewer layers")

    # Layers may be collected in a list before a module gets them: what has weights is noticed by these.
    hooks = (
        register_module_module_registration_hook(lambda *_: count("modules")),
        register_module_parameter_registration_hook(lambda *_: count("tensors")),
    )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def initialize(system: System, recipe: "Recipe") -> None:
    """Draw every network's first weights; each network's draw depends on the seed and its own name alone."""
    draw = bind("initializers", recipe.initializer)()
    for name, network in system.networks.items():
        draw(network, torch.Generator().manual_seed(derive_seed(recipe.training.seed, "initialize", name)))


def size_multiple_of(network: nn.Module) -> int:
    """What heights and widths have to be multiples of, as a generator says.

    Raises:
        RecipeError: When it does not say.
    """
    multiple = read_traits(network, NetworkTraits).size_multiple
    if not isinstance(multiple, int) or multiple < 1:
        raise RecipeError(
            f"generator {type(network).__name__}: its 'size_multiple' is {multiple!r}; an int ≥ 1 is needed"
        )
    return multiple


def check_shapes(recipe: "Recipe") -> None:
    """Build the networks without memory and show them one crop.

    Raises:
        RecipeError: When a network cannot take the crop, or does not return what it should.
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
                f"{recipe.name}: its networks cannot take crops of {data.crop_size}×{data.crop_size} "
                f"(data.crop_size): {_first_line(error)}; take larger crops, or networks with fewer layers"
            ) from error


def _check_translation(recipe: "Recipe", network: nn.Module, crop: Tensor, channels: int, name: str) -> None:
    side = recipe.data.crop_size
    multiple = size_multiple_of(network)
    if side % multiple:
        below = side - side % multiple
        better = f"{below} or {below + multiple}" if below else f"{multiple}"
        raise RecipeError(
            f"{recipe.name}: data.crop_size is {side}, but {name} takes only multiples of {multiple}; set it to {better}"
        )
    try:
        made = tuple(network(crop).shape)
    except (RuntimeError, ValueError) as error:
        if _needs_values(error):
            return
        raise RecipeError(f"{recipe.name}: {name} cannot take crops of {side}×{side}: {_first_line(error)}") from error
    wanted = (len(crop), channels, side, side)
    if made != wanted:
        raise RecipeError(f"{recipe.name}: {name} makes images of shape {made} from a crop where {wanted} is needed")


def _needs_values(error: Exception) -> bool:
    """Whether a block wanted to know a value, which tensors without memory do not have: then it cannot be tried so."""
    return "meta tensor" in str(error) or "Meta tensor" in str(error)


def _is_too_large(error: Exception) -> bool:
    words = ("overflow", "allocate", "out of memory")
    return not isinstance(error, RuntimeError) or any(word in str(error).lower() for word in words)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]

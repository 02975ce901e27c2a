"""One generator in one file that says what it is: it loads with one call and no flags."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from gantoolkit.data.encoding import Encoding, encoding_of
from gantoolkit.errors import CheckpointError, GantoolkitError
from gantoolkit.files.tensors import check_header, read_header, read_shapes, read_tensors, write_tensors
from gantoolkit.plugins import Direction, NetworkTraits, System, read_traits
from gantoolkit.recipes import Recipe
from gantoolkit.recipes.building import build_meta_system, build_system
from gantoolkit.runtime.memory_format import memory_format_of, set_memory_format
from gantoolkit.runtime.precision import Precision, choose_precision, compute_in

__all__ = [
    "GeneratorHeader",
    "LoadedGenerator",
    "load_generator",
    "read_generator_header",
    "save_generators",
    "write_generator",
]

_FORMAT = "gantoolkit generator 1"

_MAX_RATIO, _SPARE = 16, 1 << 32
"""All networks of a system may be so much larger than the file of one of them; a few gigabytes are no matter."""


@dataclass(frozen=True)
class LoadedGenerator:
    """A generator, ready to translate, and what its file says of it."""

    network: nn.Module
    direction: str
    recipe: Recipe
    step: int
    precision: Precision = "fp32"

    @property
    def source(self) -> Encoding:
        """How the images are kept in files that it translates."""
        return encoding_of(self.recipe.data, Direction(self.direction).source)

    @property
    def target(self) -> Encoding:
        """How its translations are kept in files."""
        return encoding_of(self.recipe.data, Direction(self.direction).target)


@dataclass(frozen=True)
class GeneratorHeader:
    """What a generator's file says of itself; nothing of it is checked against its weights.

    Args:
        direction: `A2B` or `B2A`.
        recipe: TOML of the resolved recipe that built it.
        step: Steps that it was trained.
        origin: Where its weights came from, if not from a run.
        parameters: Numbers that its tensors hold.
    """

    direction: str
    recipe: str
    step: int
    origin: str
    parameters: int


def read_generator_header(path: Path) -> GeneratorHeader:
    """Read what a generator's file says; no network is built, no tensor read.

    Raises:
        CheckpointError: When the file is missing, damaged, or no generator's.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    header = read_header(path)
    if header.get("format") != _FORMAT:
        raise CheckpointError(f"{path}: is no generator's file but '{header.get('format')}'; take one of generators/")
    check_header(path, header, {"direction": str, "recipe": str, "step": int})
    parameters = sum(math.prod(shape) for shape in read_shapes(path).values())
    return GeneratorHeader(
        Direction(header["direction"]), header["recipe"], header["step"], str(header.get("origin", "")), parameters
    )


def save_generators(folder: Path, system: System, recipe: Recipe, step: int) -> None:
    """Write `<direction>.safetensors` for each direction in which the system translates."""
    for direction, network in system.directions.items():
        write_generator(folder / f"{direction}.safetensors", network, direction=direction, recipe=recipe, step=step)


def write_generator(
    path: Path, network: nn.Module, *, direction: str, recipe: Recipe, step: int, origin: str = ""
) -> None:
    """Write one generator's file.

    Args:
        network: What translates in that direction in the system of the recipe.
        direction: `A2B` or `B2A`.
        recipe: The resolved recipe that says how to build it.
        step: Steps that it was trained here.
        origin: Where its weights come from, if not from here.

    Raises:
        CheckpointError: When it cannot be written.
    """
    header = {"format": _FORMAT, "direction": direction, "recipe": recipe.to_toml(), "step": step, "origin": origin}
    write_tensors(path, network.state_dict(), header)


def load_generator(
    path: Path, device: torch.device | str = "cpu", precision: Precision | Literal["auto"] = "fp32"
) -> LoadedGenerator:
    """Read a generator's file, build its network, and put it in evaluation mode.

    Args:
        precision: What the network computes in; its weights stay as they are.

    Raises:
        CheckpointError: When the file is missing, damaged, or no generator's.
        PluginError: When it needs a block that is not installed.
    """
    header = read_generator_header(path)
    recipe = Recipe.from_toml(header.recipe, where=str(path))
    try:
        recipe = recipe.resolve()
        sketch = build_meta_system(recipe)
    except GantoolkitError as error:
        raise type(error)(f"{path}: {error}") from error
    if sketch is not None:
        _refuse_misfit(path, sketch, _find_direction(path, sketch, header.direction))
    system = build_system(recipe)
    network = _find_direction(path, system, header.direction)
    tensors = read_tensors(path)
    kinds = {name: tensor.dtype for name, tensor in network.state_dict().items()}
    wrong = next((name for name, tensor in tensors.items() if tensor.dtype != kinds.get(name, tensor.dtype)), None)
    if wrong is not None:
        raise CheckpointError(f"{path}: its weights do not fit its recipe ('{wrong}' is {tensors[wrong].dtype})")
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise CheckpointError(f"{path}: its weights do not fit its recipe ({error})") from error
    device = torch.device(device)
    precision = choose_precision(device) if precision == "auto" else precision
    network.eval().to(device)
    parts = set(network.modules())
    for part in system.networks.values():
        if part in parts:  # what translates by optimizing holds the network that it looks through
            supported = read_traits(part, NetworkTraits).channels_last
            set_memory_format(part, memory_format_of(precision, device), supported=supported)
            compute_in(precision, part, device)
    return LoadedGenerator(network, header.direction, recipe, header.step, precision)


def _find_direction(path: Path, system: System, direction: str) -> nn.Module:
    if direction not in system.directions:
        known = ", ".join(system.directions)
        raise CheckpointError(f"{path}: says that it translates {direction!r}, but its recipe knows {known} only")
    return system.directions[direction]


def _refuse_misfit(path: Path, system: System, network: nn.Module) -> None:
    """Compare what a recipe asks for, built without memory, with what its file holds.

    A recipe of a hundred bytes can ask for networks that no machine has memory for.
    """
    asked = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    held = read_shapes(path)
    for name in (*asked, *held):
        if asked.get(name) != held.get(name):
            problem = f"'{name}' is {held.get(name, 'not there')}, where {asked.get(name, 'nothing')} is asked for"
            raise CheckpointError(f"{path}: its weights do not fit its recipe ({problem})")
    needed = sum(tensor.nbytes for part in system.networks.values() for tensor in part.state_dict().values())
    if needed > _MAX_RATIO * path.stat().st_size + _SPARE:
        raise CheckpointError(
            f"{path}: its recipe has other networks of {needed / 1e9:,.0f} GB beside this generator; it is refused"
        )

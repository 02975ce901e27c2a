"""Generator files: one self-describing file per generator, which loads with one call and no options."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from gantoolkit.data.encoding import Encoding, encoding_of
from gantoolkit.errors import CheckpointError, GantoolkitError
from gantoolkit.files.tensors import check_header, read_header, read_shapes, read_tensors, write_tensors
from gantoolkit.layers.convolution import set_convolution
from gantoolkit.plugins import Direction, NetworkTraits, System, read_traits
from gantoolkit.recipes import Recipe
from gantoolkit.recipes.building import build_meta_system, build_system
from gantoolkit.runtime.arithmetic import choose_arithmetic
from gantoolkit.runtime.memory_format import memory_format_of, set_memory_format
from gantoolkit.runtime.precision import Precision, dtype_of, set_precision
from gantoolkit.runtime.rounding import round_in_place

__all__ = [
    "GeneratorHeader",
    "LoadedGenerator",
    "load_generator",
    "read_generator_header",
    "save_generators",
    "write_generator",
]

_FORMAT = "gantoolkit generator 1"

_MAX_RATIO, _MARGIN = 16, 1 << 32
"""All networks of a system may be larger than the file of one generator by this factor and margin (in bytes)."""


@dataclass(frozen=True)
class LoadedGenerator:
    """A generator that is ready to translate, and the content of its header."""

    network: nn.Module
    direction: str
    recipe: Recipe
    step: int
    precision: Precision = "fp32"

    @property
    def source(self) -> Encoding:
        """The encoding of its input files."""
        return encoding_of(self.recipe.data, Direction(self.direction).source)

    @property
    def target(self) -> Encoding:
        """The encoding of its output files."""
        return encoding_of(self.recipe.data, Direction(self.direction).target)


@dataclass(frozen=True)
class GeneratorHeader:
    """The header of a generator file, which is not compared with its weights.

    Args:
        direction: `A2B` or `B2A`.
        recipe: TOML of the resolved recipe that built it.
        step: Training steps.
        origin: The source of its weights, if it is not a run.
        parameters: The number of parameters.
    """

    direction: Direction
    recipe: str
    step: int
    origin: str
    parameters: int


def read_generator_header(path: Path) -> GeneratorHeader:
    """Read the header of a generator file, without building the network or reading tensors.

    Raises:
        CheckpointError: When the file is missing, damaged, or not a generator file.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    header = read_header(path)
    if header.get("format") != _FORMAT:
        raise CheckpointError(f"{path}: is not a generator file but '{header.get('format')}'; use one of generators/")
    check_header(path, header, {"direction": str, "recipe": str, "step": int})
    parameters = sum(math.prod(shape) for shape in read_shapes(path).values())
    return GeneratorHeader(
        Direction(header["direction"]), header["recipe"], header["step"], str(header.get("origin", "")), parameters
    )


def save_generators(folder: Path, system: System, recipe: Recipe, step: int) -> None:
    """Write `<direction>.safetensors` for each direction of the system."""
    for direction, network in system.directions.items():
        write_generator(folder / f"{direction}.safetensors", network, direction=direction, recipe=recipe, step=step)


def write_generator(
    path: Path, network: nn.Module, *, direction: str, recipe: Recipe, step: int, origin: str = ""
) -> None:
    """Write a generator file.

    Args:
        network: The module that translates in that direction in the system of the recipe.
        direction: `A2B` or `B2A`.
        recipe: The resolved recipe that builds it.
        step: Training steps.
        origin: The source of its weights, if it is not a run.

    Raises:
        CheckpointError: When it cannot be written.
    """
    header = {"format": _FORMAT, "direction": direction, "recipe": recipe.to_toml(), "step": step, "origin": origin}
    write_tensors(path, network.state_dict(), header)


def load_generator(
    path: Path, device: torch.device | str = "cpu", precision: Precision | Literal["auto"] = "fp32"
) -> LoadedGenerator:
    """Read a generator file and build its network, in evaluation mode.

    Args:
        precision: The precision of the network. A network with the trait `narrow_weights` stores its weights rounded to it.
            `auto`, and the algorithm of 3×3 convolutions on a CPU, are chosen by `choose_arithmetic`.

    Raises:
        CheckpointError: When the file is missing, damaged, or not a generator file.
        PluginError: When a block is not installed.
    """
    header = read_generator_header(path)
    recipe = Recipe.from_toml(header.recipe, where=str(path))
    try:
        recipe = recipe.resolve()
        meta_system = build_meta_system(recipe)
    except GantoolkitError as error:
        raise type(error)(f"{path}: {error}") from error
    if meta_system is not None:
        _check_shapes(path, meta_system, _find_direction(path, meta_system, header.direction))
    system = build_system(recipe)
    network = _find_direction(path, system, header.direction)
    tensors = read_tensors(path)
    dtypes = {name: tensor.dtype for name, tensor in network.state_dict().items()}
    wrong = next((name for name, tensor in tensors.items() if tensor.dtype != dtypes.get(name, tensor.dtype)), None)
    if wrong is not None:
        raise CheckpointError(f"{path}: its weights do not fit its recipe ('{wrong}' is {tensors[wrong].dtype})")
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise CheckpointError(f"{path}: its weights do not fit its recipe ({error})") from error
    device = torch.device(device)
    arithmetic = choose_arithmetic(precision, device, [network], trains=False)
    set_convolution(network, arithmetic.convolution)
    network.eval().to(device)
    parts = set(network.modules())
    for part in system.networks.values():
        if part in parts:  # a generator that optimizes contains a network
            traits = read_traits(part, NetworkTraits)
            set_memory_format(part, memory_format_of(arithmetic.precision, device), supported=traits.channels_last)
            set_precision(arithmetic.precision, part, device)
            if traits.narrow_weights:
                round_in_place(part, dtype_of(arithmetic.precision), device)
    return LoadedGenerator(network, header.direction, recipe, header.step, arithmetic.precision)


def _find_direction(path: Path, system: System, direction: str) -> nn.Module:
    if direction not in system.directions:
        known = ", ".join(system.directions)
        raise CheckpointError(f"{path}: its direction is {direction!r}, but its recipe has only {known}")
    return system.directions[direction]


def _check_shapes(path: Path, system: System, network: nn.Module) -> None:
    """Compare the shapes that a recipe asks for, built on the meta device, with those in its file.

    A recipe of a hundred bytes can ask for networks that no machine has memory for.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    shapes = read_shapes(path)
    for name in (*expected, *shapes):
        if expected.get(name) != shapes.get(name):
            problem = f"'{name}' is {shapes.get(name, 'missing')}, and {expected.get(name, 'nothing')} is expected"
            raise CheckpointError(f"{path}: its weights do not fit its recipe ({problem})")
    needed = sum(tensor.nbytes for part in system.networks.values() for tensor in part.state_dict().values())
    if needed > _MAX_RATIO * path.stat().st_size + _MARGIN:
        raise CheckpointError(
            f"{path}: its recipe has {needed / 1e9:,.0f} GB of networks, far more than this generator; it is refused"
        )

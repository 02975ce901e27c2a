"""One generator in one file that says what it is: it loads with one call and no flags."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from gantoolkit.assembly import build_system
from gantoolkit.errors import CheckpointError
from gantoolkit.layout import arrange, memory_format_of
from gantoolkit.plugins import System
from gantoolkit.precision import Precision, choose_precision, compute_in
from gantoolkit.recipe import Recipe
from gantoolkit.training.tensorfile import read_header, read_tensors, write_tensors

__all__ = ["LoadedGenerator", "load_generator", "save_generators", "write_generator"]

_FORMAT = "gantoolkit generator 1"


@dataclass(frozen=True)
class LoadedGenerator:
    """A generator, ready to translate, and what its file says of it."""

    network: nn.Module
    direction: str
    recipe: Recipe
    step: int
    precision: Precision = "fp32"

    @property
    def in_channels(self) -> int:
        return self._channels(self.direction[0])

    @property
    def out_channels(self) -> int:
        return self._channels(self.direction[-1])

    def _channels(self, domain: str) -> int:
        return {"A": self.recipe.data.channels_A, "B": self.recipe.data.channels_B}[domain]


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
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    header = read_header(path)
    if header.get("format") != _FORMAT:
        raise CheckpointError(f"{path}: is no generator's file but '{header.get('format')}'; take one of generators/")
    recipe = Recipe.from_toml(header["recipe"], where=str(path)).resolve()
    system = build_system(recipe)
    directions = system.directions
    if header.get("direction") not in directions:
        raise CheckpointError(
            f"{path}: says that it translates {header.get('direction')!r}, but its recipe knows {', '.join(directions)} only"
        )
    network = directions[header["direction"]]
    try:
        network.load_state_dict(read_tensors(path))
    except RuntimeError as error:
        raise CheckpointError(f"{path}: its weights do not fit its recipe ({error})") from error
    device = torch.device(device)
    precision = choose_precision(device) if precision == "auto" else precision
    network.eval().to(device)
    parts = set(network.modules())
    for part in system.networks.values():
        if part in parts:  # what translates by optimising holds the network that it looks through
            arrange(part, memory_format_of(precision, device))
            compute_in(precision, part, device)
    return LoadedGenerator(network, header["direction"], recipe, header["step"], precision)

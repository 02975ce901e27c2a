"""Weights of other projects as generator files of ours, which translate with one call and no flags."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gantoolkit.assembly import build_system
from gantoolkit.errors import CheckpointError
from gantoolkit.official import load_official_weights, recognise_generator
from gantoolkit.recipe import Recipe
from gantoolkit.recipes import find_recipe
from gantoolkit.training import write_generator
from gantoolkit.weightfiles import read_weights

__all__ = ["Converted", "convert_official"]


@dataclass(frozen=True)
class Converted:
    """A generator's file that was made, and in words what was found and mended on the way."""

    path: Path
    recipe: Recipe
    findings: tuple[str, ...]


def convert_official(source: str | Path, out: str | Path, *, direction: Literal["A2B", "B2A"] = "A2B") -> Converted:
    """Read an official CycleGAN or pix2pix generator (`latest_net_G_A.pth`) and write it as a generator's file.

    Args:
        source: A file of weights; Python objects in it are refused, not loaded.
        out: The file to write, `*.safetensors`.
        direction: What the new file calls its translation.

    Raises:
        CheckpointError: When the file cannot be read, holds no such generator, or the new one cannot be written.
    """
    source, out = Path(source), Path(out)
    if out.exists() and source.exists() and out.samefile(source):
        raise CheckpointError(f"{source}: would be overwritten by what is made of it; choose another --out")
    weights = read_weights(source)
    try:
        found = recognise_generator(weights)
    except CheckpointError as error:
        raise CheckpointError(f"{source}: {error}") from error
    pix2pix = found.block["name"] == "unet" and found.block["norm"] == "batch"
    channels = dict(zip(direction.split("2"), (found.in_channels, found.out_channels), strict=True))
    changes = {
        "name": source.stem,
        "generator": found.block,
        "data.channels_A": channels["A"],
        "data.channels_B": channels["B"],
    }
    if pix2pix:
        changes["direction"] = direction
    recipe = find_recipe("pix2pix" if pix2pix else "cyclegan").swap(changes).resolve()
    network = build_system(recipe).directions[direction]
    load_official_weights(network, weights)
    write_generator(out, network, direction=direction, recipe=recipe, step=0, origin=source.name)
    return Converted(out, recipe, found.findings)

"""Images in tiles: how far from the whole image's translation, how much memory, how long.

    python -m benchmarks.tiles --sides 2048 8192 --whole-up-to 2048 --tile 1024 --out benchmarks/results/tiles-cpu.json

A ResNet generator with its first weights translates a photograph, enlarged to each side: in tiles, where it may also whole, and
for comparison in tiles that are images of their own. Memory is what the process grows by from before there is the image, which
is part of the bound that is stated.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.timing import describe_machine, write_result
from gantoolkit.cost.memory_meter import MemoryMeter
from gantoolkit.demo.photographs import load_photograph
from gantoolkit.inference import Translator
from gantoolkit.inference.tiling import measure_reach, translate_in_tiles
from gantoolkit.inference.translator import SHARE_KEPT
from gantoolkit.recipes import cyclegan
from gantoolkit.recipes.building import build_system, initialize
from gantoolkit.runs import LoadedGenerator
from gantoolkit.runtime.device import select_device


def open_translator(width: int, blocks: int, device: torch.device, **settings: Any) -> Translator:
    """A ResNet generator with its first weights."""
    recipe = cyclegan(generator={"name": "resnet", "width": width, "blocks": blocks, **settings}).resolve()
    system = build_system(recipe)
    initialize(system, recipe)
    network = system.directions["A2B"].eval().to(device)
    return Translator(LoadedGenerator(network, "A2B", recipe, step=0), tile=None)


def translate_separately(translator: Translator, images: Tensor, tile: int) -> Tensor:
    """Each tile with its border as an image of its own: what is not done."""
    network = translator.generator.network
    made = torch.empty_like(images)

    def write(rows: slice, columns: slice, part: Tensor) -> None:
        made[..., rows, columns] = part

    with torch.inference_mode():
        translate_in_tiles(
            network,
            network,
            (images.shape[2], images.shape[3]),
            lambda rows, columns: images[..., rows, columns],
            write,
            tile=tile,
            reach=measure_reach(network, images.shape[1]),
            statistics="tile",
        )
    return made


def compare(made: Tensor, right: Tensor, tile: int) -> dict[str, float]:
    """How far a translation is from the right one, in all and beside the edges of its tiles."""
    gap = (made - right).abs()
    edges = [edge for start in range(tile, gap.shape[2], tile) for edge in (start - 1, start)]
    beside = torch.cat([gap[..., edges, :].flatten(), gap[..., edges].flatten()])
    return {
        "relative_difference": float((made - right).double().norm() / right.double().norm()),
        "largest_difference": float(gap.max()),
        "mean_difference": float(gap.double().mean()),
        "mean_difference_beside_edges": float(beside.double().mean()),
    }


def main() -> None:
    """Measure, and print the result as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="+", default=[2048])
    parser.add_argument("--whole-up-to", type=int, default=2048, help="larger sides are translated in tiles alone")
    parser.add_argument("--tile", type=int, default=1024)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--blocks", type=int, default=6)
    parser.add_argument("--photograph", default="chelsea", help="of those that scikit-image ships")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    device = select_device(arguments.device)
    translator = open_translator(arguments.width, arguments.blocks, device)
    photograph = load_photograph(arguments.photograph)
    cases = []
    for side in arguments.sides:
        meter = MemoryMeter(device)
        pixels = translator.read(photograph.resize((side, side), Image.Resampling.BICUBIC))
        case: dict[str, Any] = {"side": side, "tile": arguments.tile}
        made = {}
        ways = {"tiles_anew": arguments.tile, "tiles": arguments.tile}  # what needs least memory first
        ways |= {"whole": None} if side <= arguments.whole_up_to else {}
        for way, tile in ways.items():
            translator.tile = tile
            translator.share_kept = 0.0 if way == "tiles_anew" else SHARE_KEPT
            bound = translator.memory_bound(side, side)
            meter.restart()
            began = time.perf_counter()
            (made[way],) = translator.translate_pixels([pixels])
            case[way] = {
                "seconds": round(time.perf_counter() - began, 2),
                "peak_megabytes": round((meter.read() or 0) / 1e6, 1),
            }
            if way == "tiles_anew":
                case[way]["bound_megabytes"] = round(bound / 1e6, 1)
                del made[way]  # it would count as memory of the next way
        if "whole" in made:
            images = translator.generator.source.to_floats(pixels)[None]
            translator.tile = None
            right = translator.translate_tensor(images).cpu()
            translator.tile = arguments.tile
            case["tiles"] |= compare(translator.translate_tensor(images).cpu(), right, arguments.tile)
            separate = translate_separately(translator, images.to(device), arguments.tile).cpu()
            case["separate_tiles"] = compare(separate, right, arguments.tile)
            levels = [made[way].astype(int) for way in ("tiles", "whole")]
            case["tiles"]["largest_difference_in_levels"] = int(np.abs(levels[0] - levels[1]).max())
        cases.append(case)
    norms = sum(isinstance(layer, torch.nn.InstanceNorm2d) for layer in translator.generator.network.modules())
    result = {
        "what": "translation in tiles",
        "network": f"resnet, width {arguments.width}, {arguments.blocks} blocks, {norms} instance norms",
        **describe_machine(device),
        "tiled": cases,
    }
    write_result(result, arguments.out)


if __name__ == "__main__":
    main()

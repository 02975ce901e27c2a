"""Measure translation in tiles: difference to the translation of the whole image, memory and time.

    python -m benchmarks.tiles --sides 2048 8192 --whole-up-to 2048 --tile 1024 --out benchmarks/results/tiles-cpu.json

A ResNet generator with initial weights translates a photograph, enlarged to each side: in tiles, as a whole up to a given size,
and for comparison in independent tiles. Memory is the growth of the process from before the image is loaded, since the stated
bound includes the image.
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
from gantoolkit.inference.memory import CACHE_SHARE
from gantoolkit.inference.tiling import measure_reach, translate_in_tiles
from gantoolkit.recipes import cyclegan
from gantoolkit.recipes.building import build_system, initialize
from gantoolkit.runs import LoadedGenerator
from gantoolkit.runtime.device import select_device


def open_translator(width: int, blocks: int, device: torch.device, **settings: Any) -> Translator:
    """Create a translator for a ResNet generator with initial weights."""
    recipe = cyclegan(generator={"name": "resnet", "width": width, "blocks": blocks, **settings}).resolve()
    system = build_system(recipe)
    initialize(system, recipe)
    network = system.directions["A2B"].eval().to(device)
    return Translator(LoadedGenerator(network, "A2B", recipe, step=0), tile=None)


def translate_separately(translator: Translator, images: Tensor, tile: int) -> Tensor:
    """Translate each tile with its border as an independent image, for comparison."""
    network = translator.generator.network
    output = torch.empty_like(images)

    def write(rows: slice, columns: slice, part: Tensor) -> None:
        output[..., rows, columns] = part

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
    return output


def compare(output: Tensor, expected: Tensor, tile: int) -> dict[str, float]:
    """Measure the difference of a translation from the expected one, in total and at the edges of its tiles."""
    difference = (output - expected).abs()
    edges = [edge for start in range(tile, difference.shape[2], tile) for edge in (start - 1, start)]
    beside = torch.cat([difference[..., edges, :].flatten(), difference[..., edges].flatten()])
    return {
        "relative_difference": float((output - expected).double().norm() / expected.double().norm()),
        "largest_difference": float(difference.max()),
        "mean_difference": float(difference.double().mean()),
        "mean_difference_beside_edges": float(beside.double().mean()),
    }


def main() -> None:
    """Measure, and print the result as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="+", default=[2048])
    parser.add_argument("--whole-up-to", type=int, default=2048, help="translate larger sides in tiles only")
    parser.add_argument("--tile", type=int, default=1024)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--blocks", type=int, default=6)
    parser.add_argument("--photograph", default="chelsea", help="name of a photograph in scikit-image")
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
        translations = {}
        modes = {"tiles_anew": arguments.tile, "tiles": arguments.tile}  # the one with the least memory first
        modes |= {"whole": None} if side <= arguments.whole_up_to else {}
        for mode, tile in modes.items():
            translator.memory.tile = tile
            translator.memory.cache_share = 0.0 if mode == "tiles_anew" else CACHE_SHARE
            bound = translator.memory.bound(side, side)
            meter.restart()
            start = time.perf_counter()
            (translations[mode],) = translator.translate_pixels([pixels])
            case[mode] = {
                "seconds": round(time.perf_counter() - start, 2),
                "peak_megabytes": round((meter.read() or 0) / 1e6, 1),
            }
            if mode == "tiles_anew":
                case[mode]["bound_megabytes"] = round(bound / 1e6, 1)
                del translations[mode]  # it would count as memory of the next one
        if "whole" in translations:
            images = translator.generator.source.to_floats(pixels)[None]
            translator.memory.tile = None
            expected = translator.translate_tensor(images).cpu()
            translator.memory.tile = arguments.tile
            case["tiles"] |= compare(translator.translate_tensor(images).cpu(), expected, arguments.tile)
            separate = translate_separately(translator, images.to(device), arguments.tile).cpu()
            case["separate_tiles"] = compare(separate, expected, arguments.tile)
            levels = [translations[mode].astype(int) for mode in ("tiles", "whole")]
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

"""Translations on the devices of the stand-in: by graphs, without graphs, from threads, and in tiles."""

import gc
import tempfile
from collections import Counter
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fakecuda.cases import print_outcomes
from fakecuda.journal import Journal, record
from gantoolkit.inference import Translator, feature_cache, memory
from gantoolkit.inference.feature_cache import FeatureCache
from gantoolkit.inference.tiling import translate_in_tiles
from gantoolkit.recipes import cyclegan
from gantoolkit.recipes.building import build_system
from gantoolkit.runs import LoadedGenerator, write_generator

CALLS_UNTIL_REPLAY = 3
REACH = 84
"""Of the paper's generator. Weights that mean nothing have no receptive field that could be measured."""

SMALL = {"name": "resnet", "width": 8, "blocks": 1}


class ReadingGenerator(nn.Module):
    """Reads a value of the device, for which the host has to wait."""

    size_multiple = 1

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 1)

    def forward(self, images: Tensor) -> Tensor:
        output = self.layer(images)
        return output if float(output.mean()) < 1e9 else -output


def open_translator(folder: Path, generator: dict[str, Any] | None = None, **options: Any) -> Translator:
    """Save a generator, the paper's by default, and load it."""
    recipe = (cyclegan(generator=generator) if generator else cyclegan()).resolve()
    path = folder / "A2B.safetensors"
    write_generator(path, build_system(recipe).directions["A2B"], direction="A2B", recipe=recipe, step=0)
    return Translator.load(path, **{"device": "cuda", "precision": "bf16", **options})


def images_on(device: torch.device, count: int = 1, side: int = 256) -> Tensor:
    return torch.zeros(count, 3, side, side, device=device)


def describe(journal: Journal) -> dict[str, Any]:
    """What a part of a program asked of CUDA."""
    copied: Counter[str] = Counter()
    for copy in journal.copies:
        copied[copy.name] += copy.count
    return {
        "launches": len(journal.launches),
        "replays": [replay.count for replay in journal.replays],
        "captures": len(journal.captures),
        "copies": len(journal.copies),
        "copied": dict(copied),
        "waits": len(journal.waits),
        "devices": sorted(journal.devices),
    }


def repeat(folder: Path, *, count: int = 1, **options: Any) -> dict[str, Any]:
    """The call after the first replay."""
    opened = open_translator(folder, **options)
    images = images_on(opened.device, count)
    for _ in range(CALLS_UNTIL_REPLAY):
        opened.translate_tensor(images)
    with record() as journal:
        opened.translate_tensor(images)
    return describe(journal) | {"problem": opened.capture_problem}


def all_calls(opened: Translator) -> dict[str, Any]:
    """All calls of a shape until one would be replayed."""
    with record() as journal:
        for _ in range(CALLS_UNTIL_REPLAY + 1):
            opened.translate_tensor(images_on(opened.device, side=32))
    return describe(journal) | {"problem": opened.capture_problem}


def refuse() -> dict[str, Any]:
    """A generator that CUDA cannot capture; then random numbers."""
    generator = LoadedGenerator(ReadingGenerator().cuda(), "A2B", cyclegan(), step=0)
    outcome = all_calls(Translator(generator))
    torch.randn(4, device="cuda")
    return outcome


def draw(folder: Path) -> dict[str, Any]:
    """A generator that draws random numbers."""
    unet = {"name": "unet", "depth": 3, "width": 4, "dropout": 0.5, "noise_at_test": True}
    return all_calls(open_translator(folder, unet))


def call_from_threads(folder: Path) -> dict[str, Any]:
    """Calls of one shape from several threads, on streams of their own."""
    opened = open_translator(folder, SMALL)
    errors: list[str] = []

    def call() -> None:
        try:
            with torch.cuda.stream(torch.cuda.Stream(opened.device)):
                for _ in range(5):
                    opened.translate_tensor(images_on(opened.device, side=32))
        except Exception as error:
            errors.append(repr(error))

    threads = [Thread(target=call) for _ in range(3)]
    with record() as journal:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return describe(journal) | {"problem": opened.capture_problem, "errors": errors}


def release(folder: Path) -> dict[str, Any]:
    """The bytes that a translator with graphs leaves behind, without the help of the garbage collector."""
    repeat(folder, generator=SMALL)  # libraries keep memory of their own
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    gc.disable()
    repeat(folder, generator=SMALL)
    after = torch.cuda.memory_allocated()
    gc.enable()
    return {"bytes": after - before}


def translate_tiles(folder: Path, side: int, tile: int) -> dict[str, Any]:
    """An image of bytes, in tiles."""
    opened = open_translator(folder, tile=tile)
    with record() as journal:
        opened.translate_pixels([np.zeros((side, side, 3), dtype=np.uint8)])
    return describe(journal)


def cache_tiles(
    folder: Path, *, device_bytes: int = 0, host_bytes: int = 0, bandwidth: float = 1, side: int = 512
) -> dict[str, Any]:
    """An image on the device, in tiles of 256 pixels, with a cache."""
    feature_cache.host_bandwidth = lambda device: bandwidth  # the time of a kernel means nothing
    network = open_translator(folder).generator.network
    image, translation = images_on(torch.device("cuda"), side=side), images_on(torch.device("cuda"), side=side)

    def write(rows: slice, columns: slice, part: Tensor) -> None:
        translation[..., rows, columns] = part

    with record() as journal, torch.inference_mode():
        translate_in_tiles(
            network,
            network,
            (side, side),
            lambda rows, columns: image[..., rows, columns].contiguous(memory_format=torch.channels_last),
            write,
            tile=256,
            reach=REACH,
            cache=FeatureCache(device_bytes, host_bytes),
        )
    return describe(journal)


def main() -> None:
    memory.measure_reach = lambda network, channels: REACH
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print_outcomes(
            {
                "batch 1": partial(repeat, folder),
                "batch 16": partial(repeat, folder, count=16),
                "fp32": partial(repeat, folder, precision="fp32"),
                "second device": partial(repeat, folder, device="cuda:1"),
                "without a graph": partial(repeat, folder, capture=False),
                "refused": refuse,
                "random numbers": partial(draw, folder),
                "threads": partial(call_from_threads, folder),
                "release": partial(release, folder),
                "tiles": partial(translate_tiles, folder, 1024, 512),
                "tiles on the device": partial(cache_tiles, folder, device_bytes=1 << 40),
                "tiles on the host": partial(cache_tiles, folder, host_bytes=1 << 40, bandwidth=1e18),
                "tiles with a slow host": partial(cache_tiles, folder, host_bytes=1 << 40),
                "tiles without a cache": partial(cache_tiles, folder),
            }
        )


if __name__ == "__main__":
    main()

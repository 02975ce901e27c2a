"""Measure how long a batch takes with each cache, and how much loading it slows down a training step.

    python -m benchmarks.data --side 286 --crop 256 --images 200 --width 600 --height 400

The data are generated photographs (smooth shapes with noise, as JPEG), or a data set given with --data. Every round covers
all modes, so that other load affects them alike. `file cold` starts with an empty cache, `file warm` with a full one. Steps
are those of CycleGAN with small networks. They are also timed with a batch that is already on the device; `ratio` is the median
over rounds of the ratio of both medians.
"""

import argparse
import itertools
import operator
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.timing import describe_machine, write_result
from gantoolkit.data import CacheMode, TrainingBatches, open_dataset
from gantoolkit.plugins import Pairing
from gantoolkit.recipes import Recipe, cyclegan
from gantoolkit.runtime.device import select_device
from gantoolkit.training.building import build_trainer

Batch = dict[str, Tensor]


@dataclass
class Mode:
    """One way to load batches, and its measured milliseconds.

    Args:
        cache: Where decoded images are cached.
        workers: Number of worker processes.
        cold: Whether each measurement starts with an empty cache.
    """

    cache: CacheMode
    workers: int = 0
    cold: bool = False
    opening: list[float] = field(default_factory=list)
    batches: list[float] = field(default_factory=list)
    steps: list[float] = field(default_factory=list)
    preloaded: list[float] = field(default_factory=list)


def make_photographs(root: Path, count: int, size: tuple[int, int]) -> Path:
    """Write a data set of `count` images per domain that are about as expensive to decode as photographs."""
    generator = np.random.default_rng(0)
    for domain in "AB":
        (root / f"train{domain}").mkdir(parents=True)
        for number in range(count):
            shapes = Image.fromarray(generator.integers(0, 256, (12, 16, 3), dtype=np.uint8))
            smooth = np.asarray(shapes.resize(size, Image.Resampling.BICUBIC), dtype=np.float32)
            noisy = smooth + generator.normal(0, 6, smooth.shape)
            photograph = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
            photograph.save(root / f"train{domain}" / f"{number:04d}.jpg", quality=92)
    return root


def time_steps(batches: Iterable[Batch], use: Callable[[Batch], object], device: torch.device) -> list[float]:
    """Measure the milliseconds of each step: moving its batch to the device, and using it."""
    times: list[float] = []
    start = time.perf_counter()
    for batch in batches:
        use({domain: images.to(device, non_blocking=True) for domain, images in batch.items()})
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        now = time.perf_counter()
        times.append(1000 * (now - start))
        start = now
    return times[1:]  # the first includes the start of workers and the selection of kernels


def measure(root: Path, caches: Path, recipe: Recipe, arguments: argparse.Namespace) -> dict[str, Mode]:
    device = select_device(arguments.device)
    trainer = build_trainer(recipe, device)
    modes = {
        "none": Mode("none"),
        "none, 1 worker": Mode("none", workers=1),
        "none, 2 workers": Mode("none", workers=2),
        "file cold": Mode("file", cold=True),
        "file warm": Mode("file"),
        "file warm, 1 worker": Mode("file", workers=1),
        "device": Mode("device"),
    }

    def open_batches(mode: Mode, folder: Path, pairing: Pairing = "unpaired") -> TrainingBatches:
        os.environ["GANTOOLKIT_CACHE"] = str(folder)
        dataset = open_dataset(root, pairing=pairing)
        options = {"batch_size": recipe.training.batch_size, "seed": 0, "device": device}
        return TrainingBatches(dataset, recipe.data, workers=mode.workers, cache=mode.cache, **options)

    def load(mode: Mode, count: int) -> Iterator[Batch]:
        folder = Path(tempfile.mkdtemp(dir=caches)) if mode.cold else caches / "warm"
        start = time.perf_counter()
        batches = open_batches(mode, folder)
        mode.opening.append(1000 * (time.perf_counter() - start))
        return (batch.images for batch in batches.iterate(0, count))

    full_pass = open_batches(modes["file warm"], caches / "warm", "sequential")
    batch: Batch = {}
    for loaded in full_pass.iterate(0, full_pass.steps_per_epoch):  # fills the cache file
        batch = {domain: images.to(device) for domain, images in loaded.images.items()}
    for _ in range(arguments.rounds):
        for mode in modes.values():
            mode.batches += time_steps(load(mode, arguments.batches), lambda batch: None, device)
        for mode in modes.values():
            preloaded = time_steps(itertools.repeat(batch, arguments.steps), trainer.step, device)
            mode.preloaded.append(statistics.median(preloaded))
            mode.steps.append(statistics.median(time_steps(load(mode, arguments.steps), trainer.step, device)))
    return modes


def main() -> None:
    """Measure all modes, and print medians in milliseconds as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of a data set to use instead of generated photographs")
    parser.add_argument("--images", type=int, default=200, help="number of generated photographs per domain")
    parser.add_argument("--width", type=int, default=600)
    parser.add_argument("--height", type=int, default=400)
    parser.add_argument("--side", type=int, default=286, help="data.load_size")
    parser.add_argument("--crop", type=int, default=256, help="data.crop_size")
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--batches", type=int, default=100, help="batches per mode and round")
    parser.add_argument("--steps", type=int, default=10, help="training steps per mode and round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--networks", type=int, default=8, help="width of generators and discriminators; the paper's is 64"
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    recipe = cyclegan().swap(
        {
            "generator.width": arguments.networks,
            "discriminator.width": arguments.networks,
            "training.batch_size": arguments.batch_size,
            "data.load_size": arguments.side,
            "data.crop_size": arguments.crop,
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        size = (arguments.width, arguments.height)
        root = arguments.data or make_photographs(Path(folder) / "photographs", arguments.images, size)
        (Path(folder) / "caches").mkdir()
        modes = measure(root, Path(folder) / "caches", recipe.check(), arguments)
    result = {
        "what": "loading a batch, and a step with it",
        **describe_machine(select_device(arguments.device)),
        "settings": {name: str(value) for name, value in vars(arguments).items() if name != "out"},
        "modes": {
            name: {
                "opening": round(statistics.median(mode.opening), 2),
                "batch": round(statistics.median(mode.batches), 3),
                "step": round(statistics.median(mode.steps), 2),
                "preloaded": round(statistics.median(mode.preloaded), 2),
                "ratio": round(statistics.median(map(operator.truediv, mode.steps, mode.preloaded)), 3),
            }
            for name, mode in modes.items()
        },
    }
    write_result(result, arguments.out)


if __name__ == "__main__":
    main()

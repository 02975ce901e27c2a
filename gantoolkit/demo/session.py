"""The demo: make the data set, train, and compare the translations with the correct ones."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from gantoolkit.blocks.metrics import PeakSignalNoiseRatio
from gantoolkit.data import find_images, read_image, to_tensor, write_image
from gantoolkit.demo.photographs import make_demo_set
from gantoolkit.files.text import write_json
from gantoolkit.inference import Translator
from gantoolkit.plugins import Direction
from gantoolkit.recipes import find_recipe
from gantoolkit.recipes.building import build_system, initialize
from gantoolkit.run import Run
from gantoolkit.runs import LoadedGenerator
from gantoolkit.runtime.device import select_device
from gantoolkit.training import Callback, RunEnded, draw_grid

__all__ = ["DemoResult", "measure", "run_demo"]

DIRECTIONS = (Direction("A2B"), Direction("B2A"))
_ROWS = ("chelsea-064-128", "chelsea-128-192", "chelsea-128-320", "coffee-128-192", "coffee-192-256", "coffee-256-448")
"""Test images in the grid: eyes, nose and fur, the cup and its saucer."""


@dataclass(frozen=True)
class DemoResult:
    """The result of the demo.

    Args:
        end: How training ended.
        psnr: For each direction, PSNR in dB against the ground truth, averaged over the test images: of the input itself, of a
            flat color, and of the translations by the untrained and by the trained network.
        grid: Image of test images: input, translation, ground truth, reconstruction.
        photograph: Image of one whole test photograph: input, translation, ground truth.
        report: The run's report page.
    """

    end: RunEnded
    psnr: dict[str, dict[str, float]]
    grid: Path
    photograph: Path
    report: Path


def run_demo(
    out: Path,
    changes: Mapping[str, Any] | None = None,
    *,
    device: str | None = None,
    watch: Callable[[Run], AbstractContextManager[Callback]],
) -> DemoResult:
    """Train the recipe `demo` on the built-in photographs, or resume its run, and score the translations.

    Args:
        out: Folder for the data set, the run and the images.
        changes: Fields of the recipe to change.
        watch: Returns a context manager that yields the run's callback and is entered during training.

    Raises:
        GantoolkitError: As in training.
    """
    data = make_demo_set(out / "photographs")
    run = Run.start(find_recipe("demo", changes), data, out / "run")
    with watch(run) as callback:
        end = run.train(device=device, callbacks=[callback])
    psnr: dict[str, dict[str, float]] = {}
    translators = {direction: run.translator(direction, device=device) for direction in DIRECTIONS}
    for direction in DIRECTIONS:
        inputs, targets = _test_images(data, direction.source), _test_images(data, direction.target)
        psnr[direction] = {
            "input": measure(inputs, targets),
            "flat color": measure(_flat_images(data, direction.target, targets), targets),
            "untrained": measure(_untrained(run, direction, device).translate(inputs), targets),
            "trained": measure(translators[direction].translate(inputs), targets),
        }
    grid, photograph = out / "demo.png", out / "photograph.png"
    write_image(_draw_tiles(data, translators), grid)
    write_image(_draw_photograph(data, translators[DIRECTIONS[0]]), photograph)
    write_json(out / "demo.json", {"step": end.step, "psnr": psnr})
    return DemoResult(end, psnr, grid, photograph, run.report)


def measure(images: Sequence[Image.Image], targets: Sequence[Image.Image]) -> float:
    """The peak signal-to-noise ratio in dB of images against the ground truth, averaged over images; higher is closer."""
    metric = PeakSignalNoiseRatio()
    for image, target in zip(images, targets, strict=True):
        metric.update(to_tensor(image)[None], to_tensor(target)[None])
    return metric.compute()["psnr"]


def _flat_images(data: Path, domain: str, like: Sequence[Image.Image]) -> list[Image.Image]:
    """Images of the mean color of a domain's training images: the best guess that ignores the input."""
    colors = [
        np.asarray(read_image(path), dtype=float).mean(axis=(0, 1)) for path in find_images(data / f"train{domain}")
    ]
    red, green, blue = (round(value) for value in np.mean(colors, axis=0))
    return [Image.new("RGB", image.size, (red, green, blue)) for image in like]


def _test_images(data: Path, domain: str) -> list[Image.Image]:
    return [read_image(path) for path in find_images(data / f"test{domain}")]


def _untrained(run: Run, direction: str, device: str | None) -> Translator:
    """The run's generator before training; its initial weights follow from the seed."""
    system = build_system(run.recipe)
    initialize(system, run.recipe)
    network = system.directions[direction].eval().to(select_device(device))
    return Translator(LoadedGenerator(network, direction, run.recipe, step=0))


def _draw_tiles(data: Path, translators: Mapping[Direction, Translator]) -> Image.Image:
    columns: dict[str, torch.Tensor] = {}
    for direction in DIRECTIONS:
        source, target = direction.source, direction.target
        real, truth = (
            torch.stack([to_tensor(read_image(data / f"test{domain}" / f"{name}.png")) for name in _ROWS])
            for domain in (source, target)
        )
        fake = translators[direction].translate_tensor(real)
        columns[f"real_{source}"] = real
        columns[f"fake_{target}"] = fake
        columns[f"right_{target}"] = truth
        columns[f"rec_{source}"] = translators[direction.reverse].translate_tensor(fake)
    return draw_grid(columns)


def _draw_photograph(data: Path, translator: Translator) -> Image.Image:
    real, truth = (read_image(data / f"whole{domain}" / "chelsea.png") for domain in "AB")
    columns = {"real_A": real, "fake_B": translator(real), "right_B": truth}
    return draw_grid({name: to_tensor(image)[None] for name, image in columns.items()})

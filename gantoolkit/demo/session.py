"""The demonstration: make the data, train, and measure the translations against the known answer."""

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from gantoolkit.assembly import build_system, initialize
from gantoolkit.data import find_images, read_image, to_tensor, write_image
from gantoolkit.demo.photographs import make_demo_set
from gantoolkit.device import select_device
from gantoolkit.errors import CheckpointError
from gantoolkit.files import whole_file
from gantoolkit.inference import Translator
from gantoolkit.recipes import find_recipe
from gantoolkit.run import Run
from gantoolkit.training import Callback, LoadedGenerator, RunEnded, draw_grid

__all__ = ["DemoResult", "Score", "measure", "run_demo"]

DIRECTIONS = ("A2B", "B2A")
_ROWS = ("chelsea-064-128", "chelsea-128-192", "chelsea-128-320", "coffee-128-192", "coffee-192-256", "coffee-256-448")
"""Tiles to show: eyes, nose and fur, the cup and its saucer."""


@dataclass(frozen=True)
class Score:
    """How close pictures are to the right ones, in the mean over the held-out tiles.

    Args:
        psnr: Peak signal-to-noise ratio in dB, from 8-bit values; higher is closer.
        ssim: Structural similarity, 1 is equal.
    """

    psnr: float
    ssim: float


@dataclass(frozen=True)
class DemoResult:
    """What the demonstration came to.

    Args:
        end: How its training ended.
        scores: By direction: of the input itself, of the untrained network, and of the trained one.
        grid: Picture of held-out tiles: input, translation, right answer, way back.
        photograph: Picture of one whole held-out photograph: input, translation, right answer.
        report: The run's page.
    """

    end: RunEnded
    scores: dict[str, dict[str, Score]]
    grid: Path
    photograph: Path
    report: Path


def run_demo(
    out: Path, *, device: str | None = None, watch: Callable[[Run], AbstractContextManager[Callback]]
) -> DemoResult:
    """Train the shipped recipe `demo` on the built-in photographs, or continue, and measure.

    Args:
        out: Folder for the data set, the run and the pictures.
        watch: Makes the run's callback, which is entered while the run trains.

    Raises:
        GantoolkitError: As training does.
    """
    data = make_demo_set(out / "photographs")
    run = Run.start(find_recipe("demo"), data, out / "run")
    with watch(run) as callback:
        end = run.train(device=device, callbacks=[callback])
    scores: dict[str, dict[str, Score]] = {}
    translators = {direction: run.translator(direction, device=device) for direction in DIRECTIONS}
    for direction in DIRECTIONS:
        inputs, answers = _test_images(data, direction[0]), _test_images(data, direction[-1])
        scores[direction] = {
            "input": measure(inputs, answers),
            "untrained": measure(_untrained(run, direction, device).translate(inputs), answers),
            "trained": measure(translators[direction].translate(inputs), answers),
        }
    grid, photograph = out / "demo.png", out / "photograph.png"
    write_image(_draw_tiles(data, translators), grid)
    write_image(_draw_photograph(data, translators["A2B"]), photograph)
    figures = {direction: {name: asdict(score) for name, score in by.items()} for direction, by in scores.items()}
    try:
        with whole_file(out / "demo.json") as part:
            part.write_text(json.dumps({"step": end.step, "scores": figures}, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise CheckpointError(f"{out / 'demo.json'}: cannot be written ({error.strerror or error})") from error
    return DemoResult(end, scores, grid, photograph, run.report)


def measure(images: Sequence[Image.Image], answers: Sequence[Image.Image]) -> Score:
    """The mean PSNR and SSIM of images against the right ones."""
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    pairs = [(np.asarray(answer), np.asarray(image)) for image, answer in zip(images, answers, strict=True)]
    psnr = [peak_signal_noise_ratio(answer, image) for answer, image in pairs]
    ssim = [structural_similarity(answer, image, channel_axis=-1) for answer, image in pairs]
    return Score(float(np.mean(psnr)), float(np.mean(ssim)))


def _test_images(data: Path, domain: str) -> list[Image.Image]:
    return [read_image(path) for path in find_images(data / f"test{domain}")]


def _untrained(run: Run, direction: str, device: str | None) -> Translator:
    """What the run started from: its first weights follow from its seed."""
    system = build_system(run.recipe)
    initialize(system, run.recipe)
    network = system.networks[system.directions[direction]].eval().to(select_device(device))
    return Translator(LoadedGenerator(network, direction, run.recipe, step=0))


def _draw_tiles(data: Path, translators: dict[str, Translator]) -> Image.Image:
    columns: dict[str, torch.Tensor] = {}
    for direction, back in zip(DIRECTIONS, reversed(DIRECTIONS), strict=True):
        source, target = direction[0], direction[-1]
        real, answer = (
            torch.stack([to_tensor(read_image(data / f"test{domain}" / f"{name}.png")) for name in _ROWS])
            for domain in (source, target)
        )
        fake = translators[direction].translate_tensor(real)
        columns[f"real_{source}"] = real
        columns[f"fake_{target}"] = fake
        columns[f"right_{target}"] = answer
        columns[f"rec_{source}"] = translators[back].translate_tensor(fake)
    return draw_grid(columns)


def _draw_photograph(data: Path, translator: Translator) -> Image.Image:
    real, answer = (read_image(data / f"whole{domain}" / "chelsea.png") for domain in "AB")
    columns = {"real_A": real, "fake_B": translator(real), "right_B": answer}
    return draw_grid({name: to_tensor(image)[None] for name, image in columns.items()})

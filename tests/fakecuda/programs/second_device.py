"""Runs on the second of two devices."""

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch
from _helpers.recipes import TINY_RECIPES
from _helpers.small import make_dataset, make_image

import gantoolkit
from fakecuda.cases import print_outcomes
from fakecuda.journal import Journal, record
from fakecuda.stepping import STEPS_UNTIL_REPLAY, open_steps
from fakecuda.values import ignore_values

DEVICE = torch.device("cuda:1")


def describe(journal: Journal) -> dict[str, Any]:
    """Where the work was, and what was captured. Pinned memory belongs to no device."""
    elsewhere = [entry for entry in journal.records if entry.device != DEVICE.index and entry.name != "cudaHostAlloc"]
    return {
        "elsewhere": sorted({f"{entry.kind} {entry.name}"[:80] for entry in elsewhere}),
        "launches": len(journal.launches),
        "nodes": [len(capture.nodes) for capture in journal.captures],
        "replayed": [replay.count for replay in journal.replays],
    }


def take_steps(precision: str, *, capture: bool) -> dict[str, Any]:
    """Take steps without a run around them."""
    recipe = TINY_RECIPES["cyclegan"].swap({"training.precision": precision, "training.capture": capture})
    with open_steps(recipe, DEVICE) as steps, record() as journal:
        steps.take_several(STEPS_UNTIL_REPLAY)
    return describe(journal)


def train(folder: Path, *, capture: bool) -> dict[str, Any]:
    """A whole run: samples, checkpoints, a stop and a resume."""
    recipe = TINY_RECIPES["cyclegan"].swap({"training.capture": capture})
    with record() as journal:
        for stop in (STEPS_UNTIL_REPLAY, None):
            gantoolkit.train(recipe, folder / "data", folder / f"run-{capture:d}", device=str(DEVICE), stop_at=stop)
    return describe(journal)


def translate(folder: Path) -> dict[str, Any]:
    """Translate an image with a generator of a run."""
    with record() as journal:
        gantoolkit.load(folder / "run-0", "A2B", device=str(DEVICE))(make_image(1))
    return describe(journal)


def main() -> None:
    ignore_values()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_dataset(folder / "data")
        cases = {
            f"steps {precision}{' capture' * capture}": partial(take_steps, precision, capture=capture)
            for precision in ("fp32", "bf16")
            for capture in (False, True)
        }
        cases |= {f"run{' capture' * capture}": partial(train, folder, capture=capture) for capture in (False, True)}
        print_outcomes(cases | {"translation": partial(translate, folder)})


if __name__ == "__main__":
    main()

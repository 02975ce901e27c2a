"""Steps of every recipe in one precision, given as an argument, with and without capture and deterministic algorithms."""

import sys
from functools import partial
from typing import Any

import torch

from fakecuda.cases import print_outcomes
from fakecuda.journal import record
from fakecuda.recipes import RECIPES
from fakecuda.stepping import STEPS_UNTIL_REPLAY, open_steps
from fakecuda.values import ignore_values


def run_steps(name: str, precision: str, *, capture: bool, deterministic: bool) -> dict[str, Any]:
    """Take steps of a recipe: once without a graph, or until one is replayed."""
    settings = {"precision": precision, "capture": capture, "deterministic": deterministic}
    recipe = RECIPES[name].swap({f"training.{key}": value for key, value in settings.items()})
    with open_steps(recipe, torch.device("cuda")) as steps, record() as journal:
        steps.take_several(STEPS_UNTIL_REPLAY if capture else 2)
    return {"replays": len(journal.replays), "nodes": [len(capture.nodes) for capture in journal.captures]}


def main(precision: str) -> None:
    ignore_values()
    print_outcomes(
        {
            f"{name} {capture:d}{deterministic:d}": partial(
                run_steps, name, precision, capture=capture, deterministic=deterministic
            )
            for name in RECIPES
            for capture in (False, True)
            for deterministic in (False, True)
        }
    )


if __name__ == "__main__":
    main(sys.argv[1])

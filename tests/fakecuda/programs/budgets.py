"""What a step costs, with the networks of the paper at 256×256."""

import gc
import os
from functools import partial
from typing import Any
from unittest import mock

import torch

from fakecuda.cases import print_outcomes
from fakecuda.journal import WORK, record
from fakecuda.stepping import STEPS_UNTIL_REPLAY, open_steps
from fakecuda.values import ignore_values
from gantoolkit.recipes import cyclegan


def measure_step(*, capture: bool, deterministic: bool = False, batch_size: int = 1) -> dict[str, Any]:
    """The work, waits and reserved memory of a step."""
    recipe = cyclegan(identity_weight=5.0).swap(
        {
            "training.precision": "bf16",
            "training.batch_size": batch_size,
            "training.capture": capture,
            "training.deterministic": deterministic,
        }
    )
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    with open_steps(recipe, torch.device("cuda")) as steps:
        with record() as start:
            steps.take_several(STEPS_UNTIL_REPLAY + 2)  # the first copies of replays still allocate pinned memory
        batch = steps.prepare()
        with record() as step:
            steps.take(batch)
        reserved = torch.cuda.max_memory_reserved()
    return {
        "nodes": [len(capture.nodes) for capture in start.captures],
        "work": sum(record.kind in WORK for record in step.records),
        "launches": len(step.launches),
        "replays": len(step.replays),
        "waits": [f"{wait.name} (device {wait.device})" for wait in step.waits],
        "allocations": len(step.of_kind("malloc", "free")),
        "reserved": reserved,
    }


def measure_plain_layers() -> dict[str, Any]:
    """A step without the fused kernels, as on devices that Triton does not support."""
    with mock.patch.dict(os.environ, {"GANTOOLKIT_KERNELS": "0"}):
        return measure_step(capture=True)


def main() -> None:
    ignore_values()
    print_outcomes(
        {
            "capture, batch 16": partial(
                measure_step, capture=True, batch_size=16
            ),  # first, with no memory reserved yet
            "plain": partial(measure_step, capture=False),
            "plain, deterministic": partial(measure_step, capture=False, deterministic=True),
            "capture": partial(measure_step, capture=True),
            "capture, plain layers": measure_plain_layers,
        }
    )


if __name__ == "__main__":
    main()

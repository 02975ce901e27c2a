"""The final states of runs, for tests that compare two of them."""

import json

import torch

from gantoolkit.files.tensors import read_tensors
from gantoolkit.run import Run

__all__ = ["assert_same_state", "final_state", "rows"]


def final_state(run: Run) -> dict[str, torch.Tensor]:
    """Every tensor of the newest checkpoint."""
    return read_tensors(run.folder.list_checkpoints()[-1])


def assert_same_state(first: Run, second: Run) -> None:
    """Assert that the newest checkpoints of both runs are equal, bit for bit."""
    ours, theirs = final_state(first), final_state(second)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name


def rows(run: Run) -> list[dict[str, object]]:
    """The rows of the log, without their times."""
    lines = run.folder.log.read_text().splitlines()
    return [{name: value for name, value in json.loads(line).items() if name != "seconds"} for line in lines]

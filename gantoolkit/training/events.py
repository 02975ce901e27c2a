"""The events that a run passes to its callbacks."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor

__all__ = ["Callback", "CheckpointSaved", "Event", "RunEnded", "SamplesDrawn", "StepDone"]


@dataclass(frozen=True)
class StepDone:
    """A step is done.

    Args:
        step: The number of the step, from 1.
        steps: The length of the whole run.
        losses: By logged name. Reading a value waits for the device.
        skipped: The phase that was skipped because a value was non-finite.
        bad_files: Unreadable files of this step, with the reason.
    """

    step: int
    steps: int
    losses: dict[str, Tensor]
    skipped: str | None
    bad_files: dict[str, str]


@dataclass(frozen=True)
class SamplesDrawn:
    """A grid of sample images was written."""

    step: int
    path: Path


@dataclass(frozen=True)
class CheckpointSaved:
    """A checkpoint was written; the run can continue from it."""

    step: int
    path: Path


@dataclass(frozen=True)
class RunEnded:
    """Training is over for now."""

    step: int
    reason: Literal["finished", "stopped", "SIGINT", "SIGTERM"]
    report: Path


Event = StepDone | SamplesDrawn | CheckpointSaved | RunEnded
Callback = Callable[[Event], None]

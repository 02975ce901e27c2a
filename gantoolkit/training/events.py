"""The events that a run passes to its callbacks."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor

from gantoolkit.data.notes import Note

__all__ = ["Callback", "CheckpointSaved", "EndReason", "Event", "RunEnded", "RunStarted", "SamplesDrawn", "StepDone"]

EndReason = Literal["finished", "stopped", "SIGINT", "SIGTERM"]


@dataclass(frozen=True)
class RunStarted:
    """Training begins, or continues.

    Args:
        step: The steps done before.
        steps: The length of the whole run.
        notes: Sentences about how the folders of the data set are read, and about what they hold and is not used.
    """

    step: int
    steps: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class StepDone:
    """A step is done.

    Args:
        step: The number of the step, from 1.
        steps: The length of the whole run.
        losses: By logged name. Reading a value waits for the device.
        skipped: The phase that was skipped because a value was non-finite.
        bad_files: Unreadable files of this step, with the reason.
        notes: The notes on files of this step; each file has them once in a session.
    """

    step: int
    steps: int
    losses: dict[str, Tensor]
    skipped: str | None
    bad_files: dict[str, str]
    notes: dict[str, tuple[Note, ...]]


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
    """Training is over for now.

    Args:
        step: The last step that is done.
        reason: Why it ended: `stopped` at the step that the caller chose.
        report: The report.
        start: The steps that were done before this session. The session has trained nothing if they equal `step`.
        notes: Sentences about how files were read in the whole run, one for each kind.
        passed_over: Sentences about what was not used: unreadable files, parts of files, files in the folders of the data set.
    """

    step: int
    reason: EndReason
    report: Path
    start: int
    notes: tuple[str, ...] = ()
    passed_over: tuple[str, ...] = ()


Event = RunStarted | StepDone | SamplesDrawn | CheckpointSaved | RunEnded
Callback = Callable[[Event], None]

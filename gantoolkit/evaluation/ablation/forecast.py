"""What an ablation will need: steps, memory and time of each trial, how many fit on a device at once, and how many calls."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from gantoolkit.cost.fitting import needed_bytes
from gantoolkit.cost.step_cost import count_step
from gantoolkit.cost.timing import time_steps
from gantoolkit.errors import GantoolkitError
from gantoolkit.evaluation.ablation.trials import Trial, count_steps, read_step
from gantoolkit.recipes import Recipe
from gantoolkit.runs import RunFolder
from gantoolkit.runs.log import read_log
from gantoolkit.runtime.memory import available_memory
from gantoolkit.runtime.threads import count_cores

__all__ = ["Forecast", "choose_jobs", "count_calls", "forecast", "measure_step", "read_step_seconds", "refresh"]

_PROCESS_BYTES = 1_500_000_000
"""Memory of a CUDA process beside its step: context, libraries, graphs, images. An estimate: it has not been measured yet."""
_LARGEST_JOBS = 48  # clients of CUDA's Multi-Process Service on a device
_RECENT_ROWS = 10
_TIMED_STEPS = 3


@dataclass(frozen=True)
class Forecast:
    """What is left of a trial.

    Args:
        trial: The trial.
        step: Steps done.
        steps: Steps of the whole run.
        needed_bytes: Required memory; None if it cannot be predicted.
        seconds_per_step: None if nothing was measured.
    """

    trial: Trial
    step: int
    steps: int
    needed_bytes: int | None
    seconds_per_step: float | None

    @property
    def is_finished(self) -> bool:
        return self.step >= self.steps

    @property
    def seconds(self) -> float | None:
        """Seconds of training that are left."""
        if self.is_finished:
            return 0.0
        return None if self.seconds_per_step is None else (self.steps - self.step) * self.seconds_per_step


def forecast(trials: Sequence[Trial], data: Path, device: torch.device, *, measures: bool = False) -> list[Forecast]:
    """Forecast each trial. Memory is predicted, time is that of the newest steps of the trial.

    Args:
        trials: The trials.
        data: Folder of the data set.
        device: The device.
        measures: Also time a few steps, for a recipe of which nothing was trained yet.

    Raises:
        GantoolkitError: If the data set cannot be used, or a step that is timed fails.
    """
    sizes: dict[str, int | None] = {}
    times: dict[str, float] = {}
    forecasts: list[Forecast] = []
    for trial in trials:
        recipe, folder = trial.recipe.resolve(), RunFolder(trial.path)
        if trial.name not in sizes:
            sizes[trial.name] = _count_bytes(recipe, device)
        seconds = read_step_seconds(folder)
        if seconds is None and measures:
            if trial.name not in times:
                times[trial.name] = measure_step(recipe, device)
            seconds = times[trial.name]
        steps = count_steps(recipe, data)
        forecasts.append(Forecast(trial, read_step(folder), steps, sizes[trial.name], seconds))
    return forecasts


def refresh(forecasts: Sequence[Forecast]) -> list[Forecast]:
    """The forecasts after more training."""
    folders = [RunFolder(each.trial.path) for each in forecasts]
    return [
        replace(each, step=read_step(folder), seconds_per_step=read_step_seconds(folder))
        for each, folder in zip(forecasts, folders, strict=True)
    ]


def choose_jobs(forecasts: Sequence[Forecast], devices: Sequence[str]) -> int:
    """How many trials train at once: one on a CPU, which each of them fills; on CUDA as many as fit into memory.

    A step at batch 1 leaves most of a large GPU idle, so that processes beside it cost little time.
    """
    device = torch.device(devices[0])
    if device.type != "cuda":
        return 1
    sizes = [each.needed_bytes for each in forecasts if each.needed_bytes is not None]
    # The trials are distributed evenly over the devices, so the one with the least memory decides.
    free = min(available_memory(torch.device(name)) or 0 for name in devices)
    fitting = len(devices) * (free // max(sizes) if sizes else 1)
    limit = min(fitting, count_cores(), _LARGEST_JOBS * len(devices))
    return max(1, min(len(forecasts), limit))


def count_calls(forecasts: Sequence[Forecast], jobs: int, seconds: float) -> int | None:
    """How many calls that train for `seconds` each are left; None if the time of a step is not known for all trials."""
    left = [each.seconds for each in forecasts]
    if not left:
        return 0
    known = [value for value in left if value is not None]
    if len(known) < len(left):
        return None
    return math.ceil(max(max(known), sum(known) / jobs) / seconds)


def read_step_seconds(folder: RunFolder) -> float | None:
    """The time of a step in the newest rows of a run's log; None if it has fewer than two rows."""
    rows = [row for row in read_log(folder.log) if "seconds" in row][-_RECENT_ROWS:]
    if len(rows) < 2 or rows[-1]["step"] <= rows[0]["step"]:
        return None
    return (rows[-1]["seconds"] - rows[0]["seconds"]) / (rows[-1]["step"] - rows[0]["step"])


def measure_step(recipe: Recipe, device: torch.device) -> float:
    """The median time of a few steps on random images, with the device for itself."""
    with time_steps(recipe, device) as steps:
        steps.warm_up(1)
        return statistics.median(steps.time() for _ in range(_TIMED_STEPS))


def _count_bytes(recipe: Recipe, device: torch.device) -> int | None:
    try:
        return needed_bytes(count_step(recipe)) + (_PROCESS_BYTES if device.type == "cuda" else 0)
    except GantoolkitError:  # its step cannot run on the meta device
        return None

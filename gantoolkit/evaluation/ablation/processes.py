"""The processes of an ablation: each trains one trial on one device, as `gantoolkit train --resume` does."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from gantoolkit.errors import GantoolkitError
from gantoolkit.evaluation.ablation.forecast import Forecast
from gantoolkit.evaluation.ablation.trials import Trial
from gantoolkit.evaluation.ablation.turns import Outcome, Turn, Turns
from gantoolkit.runtime.device import select_device

__all__ = ["LOG", "TrainingProcess", "list_devices", "read_failure", "start_training", "threads_of_job", "train_trials"]

LOG = "ablate.log"
"""The output of a trial's processes, in its folder."""
_STEP = re.compile(rb"^step \d+/\d+", re.MULTILINE)
"""A line of progress in the output of `gantoolkit train`."""


def list_devices(name: str | None) -> list[str]:
    """The devices to train on: all CUDA devices for `cuda`, and for `auto` if there are any; otherwise the named one.

    Raises:
        GantoolkitError: If the device cannot be used on this machine.
    """
    device = select_device(name)
    if device.type == "cuda" and device.index is None:
        return [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    return [str(device)]


def threads_of_job(jobs: int) -> int:
    """The threads of each of several processes on this machine."""
    return max(1, torch.get_num_threads() // jobs)


def train_trials(
    forecasts: Sequence[Forecast],
    data: Path,
    devices: Sequence[str],
    *,
    jobs: int,
    workers: int = 0,
    deadline: float | None = None,
    is_interrupted: Callable[[], bool] = lambda: False,
    watch: Callable[[Sequence[Turn]], None] = lambda running: None,
) -> dict[Trial, Outcome]:
    """Train the trials that are not finished, those first of which the least is done.

    Args:
        forecasts: The trials and their steps. Their folders exist.
        data: Folder of the data set.
        devices: The devices, which the processes share.
        jobs: The number of processes that train at once.
        workers: Loader processes of each of them.
        deadline: When to stop and save, on the clock of `time.monotonic`.
        is_interrupted: Whether to stop and save now.
        watch: Called many times while processes run.

    Returns:
        The outcome of each trial that was trained.
    """
    threads = threads_of_job(jobs)
    unfinished = sorted(
        (each for each in forecasts if not each.is_finished), key=lambda each: each.step / max(1, each.steps)
    )

    def start(trial: Trial, slot: int) -> TrainingProcess:
        return start_training(trial, data, devices[slot % len(devices)], threads=threads, workers=workers)

    turns = Turns(jobs, start)
    trials = [each.trial for each in unfinished]
    return turns.run(trials, deadline=deadline, is_interrupted=is_interrupted, watch=watch)


class TrainingProcess:
    """A process that trains a trial; its output goes to a file in the trial's folder.

    Args:
        command: The command of the process.
        environment: Its environment.
        log: The file, to which its output is appended.

    Raises:
        OSError: If it cannot be started.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self.log = log
        with log.open("ab") as output:
            self.first_byte = output.tell()
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                process_group=0,  # Ctrl-C goes to the command, which stops the processes one by one
            )
        self._is_training = False

    def poll(self) -> int | None:
        return self.process.poll()

    def terminate(self) -> None:
        self.process.terminate()

    def kill(self) -> None:
        self.process.kill()

    def is_training(self) -> bool:
        """Whether its output reports a step: `gantoolkit train` does so within ten seconds."""
        if not self._is_training:
            with self.log.open("rb") as output:
                output.seek(self.first_byte)
                self._is_training = _STEP.search(output.read()) is not None
        return self._is_training


def start_training(trial: Trial, data: Path, device: str, *, threads: int, workers: int) -> TrainingProcess:
    """Start a process that trains a trial from its last checkpoint.

    Raises:
        GantoolkitError: If it cannot be started.
    """
    command = [sys.executable, "-m", "gantoolkit", "train", "--resume", str(trial.path), "--data", str(data)]
    command += ["--device", device, "--workers", str(workers)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONIOENCODING": "utf-8"}  # read_failure reads it
    try:
        return TrainingProcess(command, environment, trial.path / LOG)
    except OSError as error:
        raise GantoolkitError(f"{trial.path}: training could not be started ({error.strerror or error})") from error


def read_failure(trial: Trial) -> str:
    """The last message in the output of a trial."""
    try:
        lines: Sequence[str] = (trial.path / LOG).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return "no output"
    return next((line for line in reversed(lines) if line.strip()), "no output").removeprefix("error: ")

"""The log of a run: mean losses as JSON lines, a CSV table of them, and TensorBoard files."""

import importlib.util
import json
import os
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gantoolkit.errors import CheckpointError
from gantoolkit.files.atomic import describe_write_error
from gantoolkit.files.drives import SYNC_FILE, pass_over
from gantoolkit.files.text import write_csv, write_text

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

__all__ = ["EVALUATION", "Log", "RunningMeans", "read_log", "unit_name"]

EVALUATION = "evaluation"
"""Prefix of the logged names of evaluations: `evaluation/A2B/psnr`."""

_TIMEOUT_S = 10.0
"""Seconds for TensorBoard's thread to end."""


class RunningMeans:
    """Running means by name. Values are added on their device in one operation, and read only by `compute`."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._sums = torch.zeros(0, dtype=torch.float64)  # in the order of the counts

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Add one value for each name."""
        if not values:
            return
        wide = torch.stack([value.detach() for value in values.values()]).double()
        for name in values:
            self._counts[name] = self._counts.get(name, 0) + 1
        sums = self._sums.to(wide.device)
        if missing := len(self._counts) - len(sums):
            sums = torch.cat([sums, sums.new_zeros(missing)])
        if list(values) == list(self._counts):
            self._sums = sums + wide
        else:
            sums = sums.clone()
            indices = {name: index for index, name in enumerate(self._counts)}
            for name, value in zip(values, wide.unbind(), strict=True):
                sums[indices[name]] += value
            self._sums = sums

    def compute(self) -> dict[str, float]:
        """The means so far."""
        return {name: total / count for name, (total, count) in self.state().items()}

    def state(self) -> dict[str, tuple[float, int]]:
        """Sums and counts; JSON-serializable."""
        return dict(zip(self._counts, zip(self._sums.tolist(), self._counts.values(), strict=True), strict=True))

    @classmethod
    def restore(cls, state: Mapping[str, tuple[float, int]]) -> "RunningMeans":
        """The means of a `state`."""
        means = cls()
        means._counts = {name: int(count) for name, (_, count) in state.items()}
        means._sums = torch.tensor([total for total, _ in state.values()], dtype=torch.float64)
        return means


class Log:
    """Appends rows to the log of a run, and to TensorBoard files if that package is installed.

    Args:
        path: The file of JSON lines.
        table: The CSV file that `write_table` writes.
        tensorboard: The folder of TensorBoard files.
        step: The step from which the run continues; rows of later steps, from a killed run, are removed.
    """

    def __init__(self, path: Path, table: Path, tensorboard: Path, *, step: int) -> None:
        self.path = path
        self.table = table
        rows = [row for row in read_log(path) if row["step"] <= step]
        write_text(path, "".join(json.dumps(row) + "\n" for row in rows), CheckpointError)
        self.tensorboard = tensorboard
        # TensorBoard writes in a thread. The next call raises its failure; Python would also print a traceback.
        self._excepthook, threading.excepthook = threading.excepthook, self._handle_thread_error
        try:
            with _explain(tensorboard):
                self._tensorboard = _open_tensorboard(tensorboard, step)
        except CheckpointError:
            threading.excepthook = self._excepthook
            raise

    def write(self, row: Mapping[str, Any]) -> None:
        """Append one row, which has a column `step`.

        Raises:
            CheckpointError: When the disk is full, or the folder was deleted.
        """
        with _explain(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            with pass_over(SYNC_FILE, self.path):
                os.fsync(file.fileno())  # after a power failure, rows before the last checkpoint must be there
        if self._tensorboard is not None:
            with _explain(self.tensorboard):
                for name, value in row.items():
                    if name != "step" and not isinstance(value, str):
                        self._tensorboard.add_scalar(name, value, row["step"])

    def write_image(self, name: str, image: Tensor, step: int) -> None:
        """Add an image (H, W, C) of bytes to TensorBoard.

        Raises:
            CheckpointError: When the disk is full, or the folder was deleted.
        """
        if self._tensorboard is not None:
            with _explain(self.tensorboard):
                self._tensorboard.add_image(name, image, step, dataformats="HWC")

    def write_table(self) -> None:
        """Write all rows as CSV, with one column for each name.

        Raises:
            CheckpointError: When the disk is full, or the folder was deleted.
        """
        write_csv(self.table, read_log(self.path), CheckpointError)

    def close(self) -> None:
        """Close the TensorBoard files."""
        is_failing = sys.exc_info()[0] is not None  # another error is being reported
        try:
            if self._tensorboard is not None:
                self._tensorboard.close()
        except OSError as error:
            if not is_failing:
                reason = describe_write_error(self.tensorboard, error)
                warnings.warn(f"{reason}; the last rows are in log.jsonl only", stacklevel=2)
        finally:
            for thread in filter(_is_tensorboards, threading.enumerate()):
                thread.join(_TIMEOUT_S)
            threading.excepthook = self._excepthook

    def _handle_thread_error(self, arguments: threading.ExceptHookArgs) -> None:
        if not (issubclass(arguments.exc_type, OSError) and _is_tensorboards(arguments.thread)):
            self._excepthook(arguments)


def _is_tensorboards(thread: threading.Thread | None) -> bool:
    return type(thread).__module__.startswith("tensorboard.")


@contextmanager
def _explain(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CheckpointError(describe_write_error(path, error)) from error


def unit_name(name: str) -> str:
    """The name under which a row holds the unit of the value of this name, if it has one."""
    return f"{name}_unit"


def read_log(path: Path) -> list[dict[str, Any]]:
    """The rows of a log; other lines are skipped, such as an incomplete last line of a killed run.

    Raises:
        CheckpointError: When it cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from error
    rows = list(map(_read_row, lines))
    if damaged := sum(row is None for row in rows[:-1]):
        warnings.warn(f"{path}: {damaged} damaged lines are skipped", stacklevel=2)
    return [row for row in rows if row is not None]


def _read_row(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) and isinstance(row.get("step"), int) else None


def _open_tensorboard(folder: Path, step: int) -> "SummaryWriter | None":
    if importlib.util.find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    try:
        return SummaryWriter(folder, purge_step=step)
    except UnicodeError:
        warnings.warn(f"{folder}: TensorBoard requires UTF-8 paths; its files are not written", stacklevel=3)
        return None

"""The log of a run: means of the losses, one JSON object a line, a table made from them, and TensorBoard's files."""

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
from gantoolkit.files.atomic import describe_failure
from gantoolkit.files.text import write_csv, write_text

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

__all__ = ["EVALUATION", "Log", "RunningMeans", "read_log"]

EVALUATION = "evaluation"
"""Prefix of the logged names of evaluations: `evaluation/A2B/psnr`."""

_PATIENCE = 10.0
"""Seconds for TensorBoard's thread to end."""


class RunningMeans:
    """Running means by name. Values are added where they lie, all at once, and read only when the means are asked for."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._sums = torch.zeros(0, dtype=torch.float64)  # in the order of the counts

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Count one value for each name."""
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
            places = {name: place for place, name in enumerate(self._counts)}
            for name, value in zip(values, wide.unbind(), strict=True):
                sums[places[name]] += value
            self._sums = sums

    def compute(self) -> dict[str, float]:
        """The means so far."""
        return {name: total / count for name, (total, count) in self.state().items()}

    def state(self) -> dict[str, tuple[float, int]]:
        """Sums and counts, for JSON."""
        return dict(zip(self._counts, zip(self._sums.tolist(), self._counts.values(), strict=True), strict=True))

    @classmethod
    def restore(cls, state: Mapping[str, tuple[float, int]]) -> "RunningMeans":
        """The means that a `state` was taken of."""
        means = cls()
        means._counts = {name: int(count) for name, (_, count) in state.items()}
        means._sums = torch.tensor([total for total, _ in state.values()], dtype=torch.float64)
        return means


class Log:
    """Appends rows to a run's log, and to TensorBoard's files where that package is installed.

    Args:
        path: The file of JSON lines.
        table: The CSV file that `write_table` makes from it.
        tensorboard: TensorBoard's folder.
        step: Where the run stands: rows of later steps, which a killed run may have left, are removed.
    """

    def __init__(self, path: Path, table: Path, tensorboard: Path, *, step: int) -> None:
        self.path = path
        self.table = table
        kept = [row for row in read_log(path) if row["step"] <= step]
        write_text(path, "".join(json.dumps(row) + "\n" for row in kept), CheckpointError)
        self.tensorboard = tensorboard
        # TensorBoard writes in a thread, whose failure is raised by the next call; Python would print a traceback of it too.
        self._excepthook, threading.excepthook = threading.excepthook, self._hear_thread
        try:
            with _explain(tensorboard):
                self._tensorboard = _open_tensorboard(tensorboard, step)
        except CheckpointError:
            threading.excepthook = self._excepthook
            raise

    def write(self, row: Mapping[str, Any]) -> None:
        """Append one row; `step` is one of its columns.

        Raises:
            CheckpointError: When the disk is full, or the file has gone.
        """
        with _explain(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())  # a checkpoint that outlives a power cut must not find the rows before it gone
        if self._tensorboard is not None:
            with _explain(self.tensorboard):
                for name, value in row.items():
                    if name != "step":
                        self._tensorboard.add_scalar(name, value, row["step"])

    def write_image(self, name: str, image: Tensor, step: int) -> None:
        """Show an image (H, W, C) of bytes in TensorBoard.

        Raises:
            CheckpointError: When the disk is full, or the folder has gone.
        """
        if self._tensorboard is not None:
            with _explain(self.tensorboard):
                self._tensorboard.add_image(name, image, step, dataformats="HWC")

    def write_table(self) -> None:
        """Write all rows as CSV, a column for each name that occurs.

        Raises:
            CheckpointError: When the disk is full, or the folder has gone.
        """
        write_csv(self.table, read_log(self.path), CheckpointError)

    def close(self) -> None:
        """Finish TensorBoard's files."""
        has_failed = sys.exc_info()[0] is not None  # and what failed is being said already
        try:
            if self._tensorboard is not None:
                self._tensorboard.close()
        except OSError as error:
            if not has_failed:
                complaint = f"{describe_failure(self.tensorboard, error)}; what was logged last is in log.jsonl alone"
                warnings.warn(complaint, stacklevel=2)
        finally:
            for thread in filter(_is_tensorboards, threading.enumerate()):
                thread.join(_PATIENCE)
            threading.excepthook = self._excepthook

    def _hear_thread(self, ended: threading.ExceptHookArgs) -> None:
        if not (issubclass(ended.exc_type, OSError) and _is_tensorboards(ended.thread)):
            self._excepthook(ended)


def _is_tensorboards(thread: threading.Thread | None) -> bool:
    return type(thread).__module__.startswith("tensorboard.")


@contextmanager
def _explain(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CheckpointError(describe_failure(path, error)) from error


def read_log(path: Path) -> list[dict[str, Any]]:
    """The rows of a log; what is no row is passed over, such as a last line that a killed run left unfinished.

    Raises:
        CheckpointError: When it cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from error
    rows = list(map(_read_row, lines))
    if damaged := sum(row is None for row in rows[:-1]):
        warnings.warn(f"{path}: {damaged} of its lines are damaged and left out", stacklevel=2)
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
        warnings.warn(f"{folder}: TensorBoard takes no path that is not UTF-8; its files are left out", stacklevel=3)
        return None

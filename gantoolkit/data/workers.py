"""Worker processes that load batches ahead: shared memory, waiting for a batch, and processes that end.

Waiting is divided into short parts, so that a signal is noticed. A worker that ends is noticed there too, not in a signal
handler, which would raise in the middle of a training step.
"""

import itertools
import os
import signal
import time
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing import resource_tracker
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import torch
from torch.utils import data as torch_data
from torch.utils.data._utils import signal_handling

from gantoolkit.errors import DataError, first_line
from gantoolkit.runtime.threads import count_cores

__all__ = [
    "POLL_SECONDS",
    "SHARED_MEMORY",
    "WORKER_TIMEOUT_SECONDS",
    "LoadingInterruptedError",
    "check_shared_memory",
    "explain_shared_memory",
    "is_worker",
    "load_ahead",
    "warn_of_many_workers",
]

Batch = TypeVar("Batch")

WORKER_TIMEOUT_SECONDS = 600.0
"""Timeout for a batch from a worker process, after which the file system is assumed to hang."""

SHARED_MEMORY = Path("/dev/shm")
"""The folder of shared memory, in which batches are passed between processes on Linux."""

POLL_SECONDS = 1.0
"""Seconds between two checks for a signal while the main process waits for a batch."""

_PREFETCH = 2
"""Batches that each worker loads ahead."""


class LoadingInterruptedError(Exception):
    """Waiting for a batch ended because the caller asked for it."""


def is_worker() -> bool:
    """Whether this process is a worker."""
    return torch_data.get_worker_info() is not None


def check_shared_memory(batch_bytes: int, workers: int, processes: int) -> None:
    """Check that the batches that the workers load ahead fit into shared memory, as far as the system tells.

    Args:
        batch_bytes: The size of a batch.
        workers: The worker processes of each process that trains.
        processes: The processes on this machine that train.

    Raises:
        DataError: When they do not fit.
    """
    free = _free_shared_memory()
    batches = processes * (_PREFETCH * workers + 2)  # and those of this step and of the step before
    if workers and free is not None and batches * batch_bytes > free:
        raise DataError(
            f"{SHARED_MEMORY}: has {_format_size(free)} free, and {processes * workers} workers need "
            f"{_format_size(batches * batch_bytes)} there for the batches that they load ahead; {_SHARED_MEMORY_REMEDY}"
        )


def explain_shared_memory(error: BaseException) -> str:
    """A sentence for a worker that could not pass its batch to the main process."""
    free = _free_shared_memory()
    rest = "" if free is None else f"; {SHARED_MEMORY} has {_format_size(free)} free"
    if "Too many open files" in str(error):
        return f"a worker process has too many open files ({first_line(error)}); raise the limit with `ulimit -n 65536`"
    return f"a worker process found no shared memory for its batch ({first_line(error)}){rest}; {_SHARED_MEMORY_REMEDY}"


_SHARED_MEMORY_REMEDY = (
    "give the container more (`docker run --shm-size=2g`, or `--ipc=host`), or load images in the main process "
    "(--workers 0)"
)


def warn_of_many_workers(workers: int) -> None:
    """Warn if there are more workers than cores that this process may use."""
    cores = count_cores()
    if workers > cores:
        warnings.warn(
            f"{workers} workers share {cores} core{'s' if cores > 1 else ''} with training, which may be slower than fewer "
            f"workers; use at most --workers {cores}",
            stacklevel=3,
        )


def load_ahead(
    samples: torch_data.Dataset[Any],
    batches: torch_data.Sampler[list[Any]],
    collate: Callable[[list[Any]], Batch],
    *,
    workers: int,
    pin_memory: bool,
    describe: Callable[[int], str],
    should_stop: Callable[[], bool],
) -> Generator[Batch, None, None]:
    """Load batches in order, in worker processes if there are any.

    Args:
        samples: Loads a sample by its position.
        batches: The positions of each batch.
        collate: Joins the samples of a batch. In a worker process, it puts the batch into shared memory.
        workers: The number of worker processes.
        pin_memory: Whether batches are copied to pinned memory.
        describe: Says what the batch of an index consists of, for an error message.
        should_stop: Whether to stop waiting for a worker; asked about once a second.

    Raises:
        LoadingInterruptedError: When `should_stop` returned True.
        DataError: When a worker has ended, or sends nothing for `WORKER_TIMEOUT_SECONDS`.
    """
    loader: torch_data.DataLoader[Batch] = _make_loader(samples, batches, collate, workers, pin_memory)
    if not workers:
        yield from loader
        return
    iterator: Any = _start_workers(loader)
    try:
        for index in itertools.count():
            batch = _wait_for_batch(iterator, partial(describe, index), should_stop)
            if batch is None:
                return
            yield batch
    finally:
        _end_workers(iterator)


def _make_loader(
    samples: torch_data.Dataset[Any],
    batches: torch_data.Sampler[list[Any]],
    collate: Callable[[list[Any]], Any],
    workers: int,
    pin_memory: bool,
) -> "torch_data.DataLoader[Any]":
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This DataLoader will create")  # see `warn_of_many_workers`
        return torch_data.DataLoader(
            samples,
            batch_sampler=batches,
            num_workers=workers,
            prefetch_factor=_PREFETCH if workers else None,
            timeout=POLL_SECONDS if workers else 0,
            collate_fn=collate,
            pin_memory=pin_memory,
            # Spawning costs a second, but a forked process may deadlock on the locks of torch's threads.
            multiprocessing_context="spawn" if workers else None,
            worker_init_fn=_set_up_worker,
            generator=torch.Generator(),  # otherwise the loader draws a seed from the global generator
        )


def _start_workers(loader: "torch_data.DataLoader[Any]") -> Any:
    with _signals_blocked(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This DataLoader will create")
        iterator: Any = iter(loader)
    # The loader's handler of SIGCHLD would raise wherever the main process is when a worker ends.
    signal_handling._remove_worker_pids(id(iterator))  # pyright: ignore[reportPrivateImportUsage]
    iterator._worker_pids_set = False
    return iterator


def _wait_for_batch(iterator: Any, describe: Callable[[], str], should_stop: Callable[[], bool]) -> Any:
    start = time.monotonic()
    while True:
        try:
            return next(iterator, None)  # after a timeout, the loader is as it was before, and may be asked again
        except RuntimeError as error:
            if problem := _explain_lost_worker(iterator, error):
                raise DataError(problem) from error
            if "DataLoader timed out" not in str(error):
                raise
        if should_stop():
            raise LoadingInterruptedError
        if time.monotonic() - start >= WORKER_TIMEOUT_SECONDS:
            raise DataError(
                f"no images were loaded for {WORKER_TIMEOUT_SECONDS:.0f} s; {_explain_wait(iterator)}. {describe()}; resume "
                "the run when they can be read again"
            )


def _explain_lost_worker(iterator: Any, error: RuntimeError) -> str:
    """Why a worker has ended; empty if the error has another reason."""
    if "Too many open files" in str(error) or "received 0 items of ancdata" in str(error):
        return "this process has too many open files; raise the limit with `ulimit -n 65536`"
    codes = [worker.exitcode for worker in iterator._workers if not worker.is_alive()]
    if not codes:
        thread = getattr(iterator, "_pin_memory_thread", None)
        ended = thread is not None and not thread.is_alive()
        return "the thread that copies batches to pinned memory has ended; use --workers 0" if ended else ""
    if -signal.SIGBUS in codes:
        return (
            f"a worker process that loads images was ended by SIGBUS: {SHARED_MEMORY} is full, or a file was cut while it was "
            f"read; {_SHARED_MEMORY_REMEDY}"
        )
    if -signal.SIGKILL in codes:
        return (
            "a worker process that loads images was killed, probably because the machine or container has run out of memory; "
            "use fewer workers (--workers)"
        )
    if codes[0] < 0:
        return f"a worker process that loads images was ended by {signal.Signals(-codes[0]).name}; use --workers 0"
    return (
        f"a worker process that loads images has ended with exit code {codes[0]}. It may have run out of memory, or have "
        'imported a script that starts training on import (put that code under `if __name__ == "__main__":`, or set '
        "workers = 0)"
    )


def _explain_wait(iterator: Any) -> str:
    """What is likely if workers send nothing, from the states of their processes."""
    states = {_process_state(worker.pid) for worker in iterator._workers}
    if "T" in states:
        return "a worker process is stopped, by Ctrl-Z or a debugger"
    if states == {"R"}:
        return "the workers still compute: the images may be very large, or the machine overloaded"
    return "the file system may hang, such as a network drive without connection"


def _process_state(process: int) -> str:
    """The state of a process as Linux names it, such as `R` and `D`; empty where the system does not tell."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""


def _end_workers(iterator: Any) -> None:
    """Kill the workers, which may hang: the loader would wait several seconds for each, and Python at exit forever."""
    for worker in iterator._workers:
        worker.kill()
    iterator._shutdown_workers()


_MAIN_PROCESS_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Block signals in the workers started here until `_set_up_worker` has run in them."""
    resource_tracker.ensure_running()  # it unblocks signals when it starts
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _MAIN_PROCESS_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _set_up_worker(worker: int) -> None:
    # Ctrl-C and the SIGTERM of a service manager or job scheduler reach the whole process group. The main process finishes
    # its step first and may still need a batch from this worker. A second SIGTERM comes from the loader.
    def ignore_once(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, ignore_once)
    for kind in (signal.SIGBUS, signal.SIGSEGV, signal.SIGFPE):
        signal.signal(kind, signal.SIG_DFL)  # torch's handlers print; the main process explains how a worker ended
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _MAIN_PROCESS_SIGNALS)


def _free_shared_memory() -> int | None:
    """The free bytes of shared memory; None on a system without such a folder."""
    try:
        status = os.statvfs(SHARED_MEMORY)
    except OSError:
        return None
    return status.f_bavail * status.f_frsize


def _format_size(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"

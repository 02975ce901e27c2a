"""The threads of a CPU: OpenMP's defaults, and a warning when other processes use the cores."""

import os
import sys
import time
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

__all__ = ["count_cores", "set_openmp_defaults", "time_threads", "warn_of_busy_cores", "warn_of_spinning_threads"]

_DEFAULTS = {
    # Threads that spin while they wait keep others, which they may wait for, from running on shared cores.
    "OMP_WAIT_POLICY": "PASSIVE",
    # A few microseconds of spinning are worth it: waking a thread takes longer than many operations of a step.
    "GOMP_SPINCOUNT": "4000",
}

_MIN_PARAMETERS = 1_000_000
_ROUNDS = 3
_LOAD = Path("/proc/loadavg")
_timed_processes: set[int] = set()


def set_openmp_defaults() -> None:
    """Set OpenMP's environment variables that are not set, unless torch is loaded: OpenMP reads them at that moment."""
    if "torch" not in sys.modules:
        for name, value in _DEFAULTS.items():
            os.environ.setdefault(name, value)


def warn_of_busy_cores(networks: Iterable["nn.Module"]) -> None:
    """Warn if several threads are slower than one, which is measured for networks of at least a million parameters.

    After each operation, a thread waits for the others. If other processes use the cores, one of them is often not running.
    """
    import torch

    threads = torch.get_num_threads()
    parameters = sum(weight.numel() for network in networks for weight in network.parameters())
    if threads == 1 or parameters < _MIN_PARAMETERS:
        return
    seconds = time_threads((1, threads))
    if seconds[threads] > seconds[1]:
        warnings.warn(
            f"other processes use the cores of this CPU: with {threads} threads, a convolution takes "
            f"{seconds[threads] / seconds[1]:.1f} times as long as with one. Stop them, or {_remedy()}",
            stacklevel=2,
        )


def warn_of_spinning_threads(network: "nn.Module") -> None:
    """Warn as `warn_of_busy_cores`, once in a process, if its threads spin and other processes use the cores at this moment.

    Otherwise, it takes microseconds.
    """
    if _threads_sleep() or os.getpid() in _timed_processes or not _are_cores_taken():
        return
    _timed_processes.add(os.getpid())
    warn_of_busy_cores([network])


def _are_cores_taken() -> bool:
    """Whether this process's threads and other processes that run now are more than the cores; False if unknown."""
    import torch

    try:
        running, _, _ = _LOAD.read_text(encoding="ascii").split()[3].partition("/")
    except OSError:  # not Linux
        return False
    return int(running) - 1 + torch.get_num_threads() > count_cores()


def count_cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _threads_sleep() -> bool:
    return os.environ.get("OMP_WAIT_POLICY", "").upper() == "PASSIVE"


def _remedy() -> str:
    if _threads_sleep():
        return "set OMP_NUM_THREADS=1"
    settings = " ".join(f"{name}={value}" for name, value in _DEFAULTS.items())
    return f"let waiting threads sleep: import gantoolkit before torch, or start Python with {settings}"


def time_threads(counts: tuple[int, ...]) -> Mapping[int, float]:
    """Time some convolutions with each number of threads, alternating; the median seconds. Takes a fraction of a second."""
    import torch

    before = torch.get_num_threads()
    features, weight = torch.ones(1, 64, 64, 64), torch.ones(64, 64, 3, 3)
    seconds: dict[int, list[float]] = {count: [] for count in counts}
    try:
        for _ in range(1 + _ROUNDS):
            for count, times in seconds.items():
                torch.set_num_threads(count)
                start = time.perf_counter()
                for _ in range(20):
                    torch.nn.functional.conv2d(features, weight).relu()
                times.append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(before)
    return {count: median(times[1:]) for count, times in seconds.items()}

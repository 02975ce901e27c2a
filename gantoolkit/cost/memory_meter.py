"""Measure the peak memory of real steps."""

import sys
from pathlib import Path

import torch

__all__ = ["MemoryMeter"]

_PROC = Path("/proc/self")


class MemoryMeter:
    """Measures the peak memory since its creation or the last `restart`.

    On CUDA it is the memory that torch allocates. On a CPU it is the growth of the process since the meter was created: in
    pages, and including the memory of libraries.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._resettable = device.type == "cpu" and _forget_peak()
        self._before = _resident() if device.type == "cpu" else 0
        self.restart()

    @property
    def kind(self) -> str:
        """What is measured, in words."""
        if self._device.type == "cuda":
            return "allocated by torch"
        return "growth of the process" if self._resettable else "growth of the process, at its largest since it began"

    def restart(self) -> None:
        """Start a new peak."""
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        elif self._resettable:
            _forget_peak()

    def read(self) -> int | None:
        """The peak in bytes; None if the system does not report it."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device)
        peak = _largest_resident()
        return None if peak is None or self._before is None else max(0, peak - self._before)


def _forget_peak() -> bool:
    """Reset the recorded peak of the process to its present size; Linux allows it if /proc is writable."""
    try:
        (_PROC / "clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def _read_status(field: str) -> int | None:
    try:
        lines = (_PROC / "status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")), None)


def _resident() -> int | None:
    size = _read_status("VmRSS")
    return _largest_resident() if size is None else size


def _largest_resident() -> int | None:
    size = _read_status("VmHWM")
    if size is not None or sys.platform == "win32":
        return size
    import resource

    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024

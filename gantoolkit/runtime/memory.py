"""Query available memory; parse and format sizes."""

import re
from pathlib import Path

import torch

from gantoolkit.errors import GantoolkitError

__all__ = ["MARGIN", "available_memory", "format_bytes", "parse_bytes", "release_cached_memory"]

MARGIN = 0.5
"""Memory reserved beyond a step's tensors, as a share of their size.

On a CPU it covers fragmentation, the workspace of convolutions, and libraries: a process grew by 20 to 43 % more than its
tensors in steps of 0.8 to 2.0 GB (benchmarks/results/plan-cpu.json). On CUDA it covers fragmentation and workspace; it has not
been measured there yet.
"""

_UNITS = {"": 1, "B": 1} | {
    f"{prefix}{ending}": base**power
    for power, prefix in enumerate("KMGT", start=1)
    for base, ending in ((1000, "B"), (1024, "iB"), (1000, ""))
}
_CGROUP = Path("/sys/fs/cgroup")


def available_memory(device: torch.device) -> int | None:
    """The free memory of `device` in bytes, or None if unknown.

    What tensors of this process use does not count as free. On CUDA, what its allocator keeps for later tensors does.
    """
    if device.type == "cuda":
        reusable = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + reusable
    free = [_read_meminfo("MemAvailable"), _read_cgroup()]
    return min((size for size in free if size is not None), default=None)


def release_cached_memory(device: torch.device) -> None:
    """Return the memory that PyTorch's allocator caches to the device, for other streams, graphs and processes."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.empty_cache()


def parse_bytes(text: str) -> int:
    """Parse a size such as `12GB`, `11.5 GiB` or `800M` into bytes. GB is a power of 1000, GiB of 1024.

    >>> parse_bytes("12GB"), parse_bytes("1.5 GiB")
    (12000000000, 1610612736)

    Raises:
        GantoolkitError: If `text` is not a size.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-zA-Z]*)", text.strip())
    units = {unit.lower(): factor for unit, factor in _UNITS.items()}
    if match is None or match[2].lower() not in units or not float(match[1]):
        raise GantoolkitError(f"'{text}' is not a memory size; write one such as 12GB, 11.5GiB or 800MB")
    return int(float(match[1]) * units[match[2].lower()])


def format_bytes(size: float) -> str:
    """Format a size in bytes with its unit, such as `1.97 GB`.

    >>> format_bytes(1_973_395_728), format_bytes(78_643_200), format_bytes(812)
    ('1.97 GB', '78.6 MB', '812 B')
    """
    for unit in ("TB", "GB", "MB", "kB"):
        if size >= (factor := _UNITS[unit.upper()]):
            return f"{size / factor:.3g} {unit}" if size < 999.5 * factor else f"{size / factor:,.0f} {unit}"
    return f"{size:.0f} B"


def _read_meminfo(field: str) -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")), None)


def _read_cgroup() -> int | None:
    """The memory left under the container's limit (cgroup v2) in bytes; None without a limit."""
    try:
        limit, used = (
            (_CGROUP / name).read_text(encoding="ascii").strip() for name in ("memory.max", "memory.current")
        )
    except OSError:
        return None
    return None if limit == "max" else max(0, int(limit) - int(used))

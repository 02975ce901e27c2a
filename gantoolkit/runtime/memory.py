"""How much memory there is, and how a size is written."""

import re
from pathlib import Path

import torch

from gantoolkit.errors import GantoolkitError

__all__ = ["MARGIN", "available_memory", "format_bytes", "parse_bytes"]

MARGIN = 0.5
"""Share of a step's tensors that a run is given on top of them.

On a CPU it is for what the allocator keeps in pieces too small to use, for what convolutions use as scratch, and for libraries:
a process grew by 20 to 43 % more than its tensors in steps of 0.8 to 2.0 GB (benchmarks/results/plan-cpu.json). On CUDA it is
for pieces and scratch likewise; there it is not measured yet.
"""

_UNITS = {"": 1, "B": 1} | {
    f"{prefix}{ending}": base**power
    for power, prefix in enumerate("KMGT", start=1)
    for base, ending in ((1000, "B"), (1024, "iB"), (1000, ""))
}
_CGROUP = Path("/sys/fs/cgroup")


def available_memory(device: torch.device) -> int | None:
    """Bytes that a run could take on the device now, beside what others, and this process, have; None if unknown."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = [_read_meminfo("MemAvailable"), _read_container()]
    return min((size for size in free if size is not None), default=None)


def parse_bytes(text: str) -> int:
    """The bytes that a size such as `12GB`, `11.5 GiB` or `800M` means; GB are powers of 1000, GiB of 1024.

    >>> parse_bytes("12GB"), parse_bytes("1.5 GiB")
    (12000000000, 1610612736)

    Raises:
        GantoolkitError: When it is no size.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-zA-Z]*)", text.strip())
    units = {unit.lower(): factor for unit, factor in _UNITS.items()}
    if found is None or found[2].lower() not in units or not float(found[1]):
        raise GantoolkitError(f"'{text}' is no size of a memory; write one such as 12GB, 11.5GiB or 800MB")
    return int(float(found[1]) * units[found[2].lower()])


def format_bytes(size: float) -> str:
    """A size with its unit, such as `1.97 GB`.

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


def _read_container() -> int | None:
    """What a container's limit (cgroup v2) leaves; None where there is none."""
    try:
        limit, used = (
            (_CGROUP / name).read_text(encoding="ascii").strip() for name in ("memory.max", "memory.current")
        )
    except OSError:
        return None
    return None if limit == "max" else max(0, int(limit) - int(used))

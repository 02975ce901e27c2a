"""Which device a run or a translation uses."""

import torch

from gantoolkit.errors import GantoolkitError
from gantoolkit.runtime.torchrun import launched_local_rank

__all__ = ["available_devices", "is_out_of_memory", "select_device"]

_LACK = (
    "allocate memory",
    "could not create a primitive",
    "could not execute a primitive",
    "could not create a memory",
)
"""PyTorch's allocator says the first; oneDNN says no more than the others where it finds no memory for code and buffers."""


def available_devices() -> list[str]:
    """The CPU, then CUDA where there is one: on what a block is tried."""
    return ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


def select_device(name: str | None = None) -> torch.device:
    """The device of that name, such as `cpu` or `cuda:1`; without a name, CUDA where there is one, else the CPU.

    Of several processes that `torchrun` has started on a machine, each gets a CUDA device of its own for `cuda`.

    Raises:
        GantoolkitError: When this machine has no such device.
    """
    if name is None or name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and (number := launched_local_rank()) is not None:
        name = f"cuda:{number}"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason, cure = str(error).partition("\n")[0], _cure(name)
        raise GantoolkitError(f"device '{name}' cannot be used here ({reason}); {cure}") from error
    return device


def _cure(name: str) -> str:
    count = torch.cuda.device_count()
    if count and name == f"cuda:{launched_local_rank()}":
        return f"start no more processes on a machine than it has CUDA devices ({count})"
    return "try cpu, cuda, or auto"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there is not enough memory."""
    # CUDA has an error of its own, a RuntimeError too; what computes on the CPU can be told by its words alone.
    words = str(error).partition("\n")[0]
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(sign in words for sign in _LACK)

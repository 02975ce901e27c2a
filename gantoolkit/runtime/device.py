"""Select the device of a run or a translation."""

import torch

from gantoolkit.errors import GantoolkitError
from gantoolkit.runtime.torchrun import launched_local_rank

__all__ = ["available_devices", "is_out_of_memory", "select_device"]

_OUT_OF_MEMORY = (
    "allocate memory",
    "could not create a primitive",
    "could not execute a primitive",
    "could not create a memory",
)
"""The first is from PyTorch's allocator, the others from oneDNN, which gives no other sign that memory has run out."""


def available_devices() -> list[str]:
    """The devices that blocks are tested on: `cpu`, then `cuda` if it is available."""
    return ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


def select_device(name: str | None = None) -> torch.device:
    """Return the device called `name`, such as `cpu` or `cuda:1`; by default CUDA if it is available, else the CPU.

    Under `torchrun`, `cuda` means the device of the process's local rank.

    Raises:
        GantoolkitError: If the device cannot be used on this machine.
    """
    if name is None or name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and (local_rank := launched_local_rank()) is not None:
        name = f"cuda:{local_rank}"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason, remedy = str(error).partition("\n")[0], _remedy(name)
        raise GantoolkitError(f"device '{name}' cannot be used here ({reason}); {remedy}") from error
    return device


def _remedy(name: str) -> str:
    count = torch.cuda.device_count()
    if count and name == f"cuda:{launched_local_rank()}":
        return f"start at most one process per CUDA device ({count} on this machine)"
    return "try cpu, cuda, or auto"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` reports that memory has run out."""
    # CUDA has its own exception class; on the CPU only the message of a RuntimeError shows it.
    message = str(error).partition("\n")[0]
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(text in message for text in _OUT_OF_MEMORY)

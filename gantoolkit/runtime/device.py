"""Select the device of a run or a translation."""

from contextlib import AbstractContextManager, nullcontext

import torch

from gantoolkit.errors import GantoolkitError
from gantoolkit.runtime.torchrun import launched_local_rank

__all__ = ["available_devices", "current_device", "is_out_of_memory", "select_device"]

_OUT_OF_MEMORY = (
    "allocate memory",
    "could not create a primitive",
    "could not execute a primitive",
    "could not create a memory",
    "out of memory",
    "ALLOC_FAILED",
    "ALLOCATION_FAILED",
)
"""The first is from PyTorch's CPU allocator, the next three from oneDNN, which gives no other sign that memory has run out, and
the others from CUDA's runtime, its driver, cuDNN and cuBLAS."""


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


def current_device(device: torch.device) -> AbstractContextManager[object]:
    """Context manager that makes a CUDA device the current one, for code that names no device; does nothing for others."""
    return torch.cuda.device(device) if device.type == "cuda" and device.index is not None else nullcontext()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` reports that memory has run out."""
    # PyTorch's CUDA allocator has its own exception class; elsewhere only the message of a RuntimeError shows it.
    message = str(error).partition("\n")[0]
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(text in message for text in _OUT_OF_MEMORY)

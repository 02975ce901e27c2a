"""Read the environment variables that a launcher such as `torchrun` sets for each process."""

import os

from gantoolkit.errors import GantoolkitError

__all__ = ["launched_local_rank", "launched_local_world_size", "launched_rank", "launched_world_size"]


def launched_world_size() -> int:
    """The number of processes on all machines (`WORLD_SIZE`); 1 without a launcher.

    Raises:
        GantoolkitError: If the variable is not a valid number.
    """
    return _read("WORLD_SIZE") or 1


def launched_rank() -> int:
    """The rank of this process (`RANK`), from 0; 0 without a launcher.

    Raises:
        GantoolkitError: If the variable is not a valid number.
    """
    rank, world_size = _read("RANK") or 0, launched_world_size()
    if world_size == 1:
        return 0
    if rank >= world_size:
        raise GantoolkitError(
            f"RANK is {rank} in the environment, and WORLD_SIZE {world_size}; ranks go from 0 to {world_size - 1}"
        )
    return rank


def launched_local_rank() -> int | None:
    """The rank of this process on its machine (`LOCAL_RANK`); None without a launcher.

    Raises:
        GantoolkitError: If the variable is not a valid number.
    """
    return _read("LOCAL_RANK")


def launched_local_world_size() -> int:
    """The number of processes on this machine (`LOCAL_WORLD_SIZE`); 1 without a launcher.

    Raises:
        GantoolkitError: If the variable is not a valid number.
    """
    return _read("LOCAL_WORLD_SIZE") or 1


def _read(name: str) -> int | None:
    text = os.environ.get(name, "")
    if text and not text.isdecimal():
        raise GantoolkitError(
            f"{name} is '{text}' in the environment; it must be a number that a launcher sets, or be unset"
        )
    return int(text) if text else None

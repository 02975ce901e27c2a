"""What a launcher such as `torchrun` says, in its environment, to each of the processes that it starts."""

import os

from gantoolkit.errors import GantoolkitError

__all__ = ["launched_local_rank", "launched_rank", "launched_world_size"]


def launched_world_size() -> int:
    """How many processes it started, on all machines together; 1 where there is no launcher.

    Raises:
        GantoolkitError: When the environment holds no such number.
    """
    return _read("WORLD_SIZE") or 1


def launched_rank() -> int:
    """Which of them this is, counted from 0.

    Raises:
        GantoolkitError: When the environment holds no such number.
    """
    number, count = _read("RANK") or 0, launched_world_size()
    if count == 1:
        return 0
    if number >= count:
        raise GantoolkitError(
            f"RANK is {number} in the environment, and WORLD_SIZE {count}; processes are counted from 0"
        )
    return number


def launched_local_rank() -> int | None:
    """Which of those on this machine this is; None where there is no launcher.

    Raises:
        GantoolkitError: When the environment holds no such number.
    """
    return _read("LOCAL_RANK")


def _read(name: str) -> int | None:
    text = os.environ.get(name, "")
    if text and not text.isdecimal():
        raise GantoolkitError(f"{name} is '{text}' in the environment; a launcher puts a number there, else unset it")
    return int(text) if text else None

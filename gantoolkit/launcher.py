"""What a launcher such as `torchrun` says, in its environment, to each of the processes that it starts."""

import os

__all__ = ["launched_processes", "local_number", "process_number"]


def launched_processes() -> int:
    """How many processes it started, on all machines together; 1 where there is no launcher."""
    return int(os.environ.get("WORLD_SIZE") or 1)


def process_number() -> int:
    """Which of them this is, counted from 0."""
    return int(os.environ.get("RANK") or 0)


def local_number() -> int | None:
    """Which of those on this machine this is; None where there is no launcher."""
    number = os.environ.get("LOCAL_RANK")
    return int(number) if number else None

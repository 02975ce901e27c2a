"""Waiting for other processes, however slow the machine is."""

import time
from collections.abc import Callable

__all__ = ["PATIENCE", "wait_for"]

PATIENCE = 1800.0
"""Seconds after which a process is assumed to hang. No test depends on speed: other programs may use the cores."""


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds.

    Raises:
        AssertionError: When it does not hold after `PATIENCE` seconds.
    """
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"the condition does not hold after {PATIENCE:.0f} s"
        time.sleep(0.02)

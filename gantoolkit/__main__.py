"""`python -m gantoolkit` is the command `gantoolkit`."""

import atexit
import contextlib
import os
import signal
import sys
import threading
from types import FrameType

__all__ = ["run"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def run() -> int:
    """The command, in a process of its own: from the first moment to the last a signal ends it with its documented code."""
    _leave_when_asked(None)
    atexit.register(_ignore_signals)  # the last of what is registered so: Python's own end would let a signal kill it
    from gantoolkit.cli import main

    code = main()
    with contextlib.suppress(OSError, ValueError):  # a reader that has gone, or a stream that was closed
        sys.stdout.flush()
    _leave_when_asked(code)
    return code


def _leave_when_asked(code: int | None) -> None:
    """Until the command begins, and once it is over, nothing is to be saved: leave at once.

    What an exception would interrupt then, an import or Python's own end, does not always let it through, nor in one sentence.
    """

    def leave(number: int, frame: FrameType | None) -> None:
        if code is None:
            os.write(2, b"error: interrupted\n" if number == signal.SIGINT else b"error: terminated\n")
        os._exit(128 + number if code is None else code)

    if threading.current_thread() is threading.main_thread():
        for kind in _SIGNALS:
            signal.signal(kind, leave)


def _ignore_signals() -> None:
    for kind in _SIGNALS:
        signal.signal(kind, signal.SIG_IGN)


if __name__ == "__main__":
    sys.exit(run())

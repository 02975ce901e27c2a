"""`python -m gantoolkit`: the same as the command `gantoolkit`."""

import atexit
import os
import signal
import sys
import threading
from types import FrameType

__all__ = ["run"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def run() -> int:
    """Run the command as a whole process: a signal ends it with the documented exit code at any moment."""
    _exit_on_signals(None)
    atexit.register(_ignore_signals)  # runs last: a signal during Python's own shutdown would kill the process
    from gantoolkit.cli import main

    code = main()
    _exit_on_signals(code)
    return code


def _exit_on_signals(code: int | None) -> None:
    """Let a signal end the process at once: before the command begins and after it ends there is nothing to save.

    Raising an exception is not reliable there: imports and Python's shutdown may swallow it or print a traceback.

    Args:
        code: The exit code of the finished command; None before it begins.
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

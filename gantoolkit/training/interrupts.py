"""Ctrl-C and SIGTERM: finish the step, save, and leave with the documented exit code; a second one leaves at once."""

import signal
import threading
import time
from types import FrameType, TracebackType

from gantoolkit.runtime.torchrun import launched_world_size

__all__ = ["Interrupts"]

_PAUSE = 2.0


class Interrupts:
    """While it is entered, the first signal is noted in `received`; a second one raises KeyboardInterrupt, which holds it.

    Where a launcher has started several processes, Ctrl-C comes from the terminal and from the launcher too: what follows
    within two seconds is one signal with the first.

    Signals can be caught in the main thread only; elsewhere nothing is noted.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._pause = _PAUSE if launched_world_size() > 1 else 0.0
        self._noted = 0.0
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():
            self._before = {kind: signal.signal(kind, self._note) for kind in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for caught, handler in self._before.items():
            signal.signal(caught, handler)  # type: ignore[arg-type]

    def receive(self, kind: signal.Signals) -> None:
        """Note a signal that has come, here or to another process of the run."""
        self.received, self._noted = kind, time.monotonic()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is None:
            self.receive(signal.Signals(number))
        elif time.monotonic() - self._noted >= self._pause:
            raise KeyboardInterrupt(signal.Signals(number))

"""Ctrl-C and SIGTERM: the run finishes its step, saves, and exits with the documented code; a second signal exits at once."""

import signal
import threading
import time
from types import FrameType, TracebackType

from gantoolkit.runtime.torchrun import launched_world_size

__all__ = ["Interrupts"]

_PAUSE_S = 2.0


class Interrupts:
    """A context in which the first signal is stored in `received`, and a second one raises a KeyboardInterrupt that holds it.

    With a launcher of several processes, Ctrl-C arrives from the terminal and from the launcher: signals within two seconds
    count as one. Signals can be handled in the main thread only; elsewhere the context does nothing.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._pause = _PAUSE_S if launched_world_size() > 1 else 0.0
        self._received_at = 0.0
        self._previous: dict[signal.Signals, object] = {}

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():
            self._previous = {kind: signal.signal(kind, self._handle) for kind in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for caught, handler in self._previous.items():
            signal.signal(caught, handler)  # type: ignore[arg-type]

    def receive(self, kind: signal.Signals) -> None:
        """Store a signal that this process or another process of the run received."""
        self.received, self._received_at = kind, time.monotonic()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received is None:
            self.receive(signal.Signals(number))
        elif time.monotonic() - self._received_at >= self._pause:
            raise KeyboardInterrupt(signal.Signals(number))

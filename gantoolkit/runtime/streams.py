"""Independent work on several CUDA streams, so that small kernels run at the same time in a CUDA graph."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

import torch

__all__ = ["ParallelStreams", "run_parallel"]

Result = TypeVar("Result")


class ParallelStreams:
    """Two CUDA streams, the current one and another, for `run_parallel`, which uses them inside `with streams.active():`.

    They are meant for the capture of a graph: work on several streams becomes parallel branches of the graph. A step without a
    graph is limited by the launches of the host, and gains nothing.

    Memory that is freed on one stream is reused on the same stream only. Since `run_parallel` begins after all earlier work and
    ends before all later work, no block is reused while another stream reads it.

    Args:
        device: The CUDA device.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._side_stream = torch.cuda.Stream(device)
        self._is_aside: dict[str, bool] = {}

    @contextmanager
    def active(self) -> Iterator[None]:
        """Context manager inside which `run_parallel` uses these streams."""
        token = _active.set(self)
        try:
            yield
        finally:
            _active.reset(token)

    def run(self, tasks: Sequence[tuple[str, Callable[[], Result]]]) -> list[Result]:
        """Run tasks as `run_parallel` does."""
        current = torch.cuda.current_stream(self._device)
        streams = [self._side_stream if self._runs_aside(key) else current for key, _ in tasks]
        is_used = self._side_stream in streams
        if is_used:
            self._side_stream.wait_stream(current)
        results: list[Result] = []
        for stream, (_, function) in zip(streams, tasks, strict=True):
            with torch.cuda.stream(stream):
                results.append(function())
        if is_used:
            current.wait_stream(self._side_stream)
        return results

    def _runs_aside(self, key: str) -> bool:
        # Always the same for one network, since its gradients are accumulated on the stream that first used its weights.
        return bool(key) and self._is_aside.setdefault(key, len(self._is_aside) % 2 == 1)


_active: ContextVar[ParallelStreams | None] = ContextVar("_active", default=None)


def run_parallel(tasks: Sequence[tuple[str, Callable[[], Result]]]) -> list[Result]:
    """Run independent tasks and return their results; at the same time if `ParallelStreams` are active, else one by one.

    Args:
        tasks: Each with the name of the network that it runs, or an empty name. Tasks of one network run one by one.
    """
    streams = _active.get()
    return streams.run(tasks) if streams is not None else [function() for _, function in tasks]

"""Independent work on several CUDA streams, so that small kernels run at the same time in a CUDA graph."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

import torch

__all__ = ["ParallelStreams", "run_parallel"]

Result = TypeVar("Result")


class ParallelStreams:
    """CUDA streams for `run_parallel`, which uses them inside `with streams.active():`.

    They are meant for the capture of a graph: work on several streams becomes parallel branches of the graph. A step without a
    graph is limited by the launches of the host, and gains nothing.

    Memory that is freed on one stream is reused on the same stream only. Since `run_parallel` begins after all earlier work and
    ends before all later work, no block is reused while another stream reads it.

    Args:
        device: The CUDA device.
        count: The number of streams, with the current one.
    """

    def __init__(self, device: torch.device, count: int = 2) -> None:
        self._device = device
        self._side_streams = [torch.cuda.Stream(device) for _ in range(count - 1)]
        self._indices: dict[str, int] = {}

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
        streams = [current, *self._side_streams]
        indices = [self._index_of(key) for key, _ in tasks]
        side_streams = [streams[index] for index in dict.fromkeys(indices) if index]
        for stream in side_streams:
            stream.wait_stream(current)
        results: list[Result] = []
        for index, (_, function) in zip(indices, tasks, strict=True):
            with torch.cuda.stream(streams[index]):
                results.append(function())
        for stream in side_streams:
            current.wait_stream(stream)
        return results

    def _index_of(self, key: str) -> int:
        # Always the same for one network, since its gradients are accumulated on the stream that first used its weights.
        return self._indices.setdefault(key, len(self._indices) % (1 + len(self._side_streams))) if key else 0


_active: ContextVar[ParallelStreams | None] = ContextVar("_active", default=None)


def run_parallel(tasks: Sequence[tuple[str, Callable[[], Result]]]) -> list[Result]:
    """Run independent tasks and return their results; at the same time if `ParallelStreams` are active, else one by one.

    Args:
        tasks: Each with the name of the network that it runs, or an empty name. Tasks of one network run one by one.
    """
    streams = _active.get()
    return streams.run(tasks) if streams is not None else [function() for _, function in tasks]

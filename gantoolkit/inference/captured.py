"""Repeated translations of one shape as CUDA graphs, so that small images do not wait for the launches of the host."""

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Size, Tensor

from gantoolkit.errors import first_line
from gantoolkit.runtime.graphs import GraphRecorder

__all__ = ["CapturedFunction"]

_CALLS_BEFORE = 2
"""Calls of a shape before its capture, which takes as long as several calls."""

_MAX_GRAPHS = 8
"""Shapes that are captured; calls of further shapes run without a graph."""

_MAX_COUNTED = 1000
"""Shapes whose calls are counted; then counting starts again."""


@dataclass(frozen=True)
class _Graph:
    replay: Callable[[], None]
    images: Tensor
    result: Tensor


class CapturedFunction:
    """Replays a function of images as a CUDA graph, from the third call of a shape on.

    All graphs share one memory pool, which is as large as the largest of them needs. Calls from several threads take turns,
    also without a graph, so that kernels are compiled by one thread at a time. A function that CUDA refuses to capture runs
    without a graph; `problem` says why.

    Args:
        function: Maps images (N, C, H, W) on the device to a tensor, the same for the same images.
        recorder: Captures graphs on the device of the images.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], recorder: GraphRecorder) -> None:
        self.problem = ""
        self._function, self._recorder = function, recorder
        self._graphs: dict[tuple[Size, torch.dtype], _Graph] = {}
        self._calls: Counter[tuple[Size, torch.dtype]] = Counter()
        self._lock = threading.Lock()
        self._stream: torch.cuda.Stream | None = None

    def __call__(self, images: Tensor) -> Tensor:
        """Call the function, in inference mode; the result is the caller's own."""
        with torch.inference_mode(), self._lock:
            graph = self._find_graph(images) if self._is_due(images) else None
            return self._function(images) if graph is None else self._replay(graph, images)

    def _is_due(self, images: Tensor) -> bool:
        key = (images.shape, images.dtype)
        if self.problem:
            return False
        if key in self._graphs:
            return True
        if len(self._graphs) >= _MAX_GRAPHS:
            return False
        if len(self._calls) >= _MAX_COUNTED:
            self._calls.clear()
        self._calls[key] += 1
        return self._calls[key] > _CALLS_BEFORE

    def _find_graph(self, images: Tensor) -> _Graph | None:
        key = (images.shape, images.dtype)
        if key not in self._graphs:
            static = images.clone()
            try:
                # In the thread and on the stream of the capture, where libraries may keep handles and plans.
                self._recorder.warm_up(lambda: self._function(static))
                replay, result = self._recorder.record(lambda: self._function(static))
            except RuntimeError as error:
                self.problem = first_line(error)
                self._graphs.clear()
            else:
                self._graphs[key] = _Graph(replay, static, result)
        return self._graphs.get(key)

    def _replay(self, graph: _Graph, images: Tensor) -> Tensor:
        if images.is_cuda:
            stream = torch.cuda.current_stream(images.device)
            if self._stream is not None and stream != self._stream:
                stream.wait_stream(self._stream)  # the last replay may still read and write the graph's tensors
            self._stream = stream
        graph.images.copy_(images, non_blocking=True)
        graph.replay()
        return graph.result.clone()

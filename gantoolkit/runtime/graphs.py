"""CUDA graphs: work that is captured once, then replayed without launching its kernels one by one."""

import contextlib
import gc
import traceback
from collections.abc import Callable
from typing import Any, TypeVar

import torch

__all__ = ["GraphRecorder"]

Result = TypeVar("Result")


class GraphRecorder:
    """Captures functions as CUDA graphs; the only user of that interface.

    Warm-up and capture share one stream, because the caching allocator keeps the memory of each stream for that stream. All
    graphs of a recorder share one memory pool, so they must be replayed one after the other.

    Args:
        device: The CUDA device of all tensors involved.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = torch.device("cuda", torch.cuda.current_device() if device.index is None else device.index)
        self._stream = torch.cuda.Stream(self._device)
        self._pool: Any = torch.cuda.graph_pool_handle()

    def warm_up(self, function: Callable[[], Result]) -> Result:
        """Call `function` on the stream of the capture: autograd state of the default stream cannot be captured."""
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            result = function()
        current.wait_stream(self._stream)
        return result

    def forget(self) -> None:
        """Use a new memory pool for the next graph, because no graph is left."""
        self._pool = torch.cuda.graph_pool_handle()

    def record(self, function: Callable[[], Result]) -> tuple[Callable[[], None], Result]:
        """A function that replays `function`, and the tensors that it returned, which each replay overwrites.

        Raises:
            RuntimeError: When `function` waits for the device, or does something else that a graph cannot capture.
            torch.OutOfMemoryError: When the graph does not fit into memory. In both cases, the device is usable as before.
        """
        graph = torch.cuda.CUDAGraph()
        try:
            with (
                torch.cuda.device(self._device),
                # Loader threads may use CUDA meanwhile.
                torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"),
            ):
                result = function()
        except torch.OutOfMemoryError as error:
            raise torch.OutOfMemoryError(self._clean_up(error)) from None
        except RuntimeError as error:
            raise RuntimeError(self._clean_up(error)) from None
        return graph.replay, result

    def _clean_up(self, error: RuntimeError) -> str:
        """Undo what torch 2.11 leaves behind after a refused capture; the reason of the refusal.

        Its generator and its allocator still believe that a capture is under way: the next random number would fail, and no
        memory would be returned to the device.
        """
        index = self._device.index
        generator = torch.cuda.default_generators[index]
        generator.graphsafe_set_state(generator.clone_state())
        with contextlib.suppress(RuntimeError, AttributeError):  # newer versions end it themselves
            torch._C._cuda_endAllocateToPool(index, self._pool)
        self.forget()
        # The end of the capture raises an error of its own; the first one names the cause.
        cause = error.__context__ if isinstance(error.__context__, RuntimeError) else error
        for each in (error, cause):  # frames hold the autograd graph, whose nodes refer to the stream of the capture
            traceback.clear_frames(each.__traceback__)
        gc.collect()
        return str(cause)

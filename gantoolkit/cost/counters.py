"""What operations of torch cost, counted as they are called: bytes of live tensors, and floating-point operations."""

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

__all__ = ["FlopCounter", "LiveBytes"]


class LiveBytes(TorchDispatchMode):
    """Inside `with LiveBytes() as live`, the bytes of all tensors that are alive are counted.

    A storage is counted when an operation returns it, until it is freed. Tensors may be on any device, also on the meta device.
    There, `bool(tensor)` is False: the trainer asks whether a loss or a gradient is non-finite.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        """Bytes alive."""
        self.peak = 0
        """The most bytes alive at once since `start_peak`."""
        self._alive: set[int] = set()

    def start_peak(self) -> None:
        """Start a new peak."""
        self.peak = self.now

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default and args[0].is_meta and args[0].dtype == torch.bool:
            return False
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage())
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        # A storage is one Python object for as long as any tensor uses it, so its id identifies it.
        key, size = id(storage), storage.nbytes()
        if key in self._alive:
            return
        self._alive.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._remove, key, size).atexit = False

    def _remove(self, key: int, size: int) -> None:
        self._alive.discard(key)
        self.now -= size


class FlopCounter(TorchDispatchMode):
    """Inside `with FlopCounter() as counter`, the operations of convolutions, matrix products and attention are counted.

    It uses torch's own formulas: two operations for each multiplication with its addition. torch's `FlopCounterMode` also
    tracks modules and therefore fails with gradients of gradients, which WGAN-GP needs.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        formula: Callable[..., int] | None = flop_registry.get(func.overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **(kwargs or {}), out_val=result)
        return result

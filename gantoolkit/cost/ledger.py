"""Bytes of all tensors that are alive, followed as operations make them and as they are dropped."""

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["Ledger"]


class Ledger(TorchDispatchMode):
    """Inside `with Ledger() as ledger`, every storage is entered when an operation returns it, and struck out when it dies.

    It takes tensors of any device, also those without memory (`meta`), whose storages have a size too. What these are asked
    in vain, whether something is true, is answered no: the trainer asks so whether a loss or a gradient is not finite.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        """Bytes alive."""
        self.peak = 0
        """The most bytes that were alive at once since `start_peak`."""
        self._alive: set[int] = set()

    def start_peak(self) -> None:
        """Look for the peak from here on."""
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
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._enter(tensor.untyped_storage())
        return made

    def _enter(self, storage: torch.UntypedStorage) -> None:
        # One storage is one object for as long as any tensor uses it, so its id tells it from the others.
        key, size = id(storage), storage.nbytes()
        if key in self._alive:
            return
        self._alive.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._strike, key, size).atexit = False

    def _strike(self, key: int, size: int) -> None:
        self._alive.discard(key)
        self.now -= size

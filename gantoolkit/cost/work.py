"""Floating-point operations, counted as operations of torch are called."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

__all__ = ["WorkCounter"]


class WorkCounter(TorchDispatchMode):
    """Inside `with WorkCounter() as counter`, the work of convolutions, matrix products and attention is added up.

    By torch's own formulas, two operations for each multiplication with its addition. Its `FlopCounterMode` also follows which
    module is at work, and so cannot be used with gradients of gradients, which WGAN-GP needs.
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
        made = func(*args, **(kwargs or {}))
        formula: Callable[..., int] | None = flop_registry.get(func.overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **(kwargs or {}), out_val=made)
        return made

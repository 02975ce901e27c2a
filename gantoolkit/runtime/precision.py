"""The floating-point precision of networks. Images, logits, losses, weights and optimizer states stay float32."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from gantoolkit.runtime.rounding import rounded_parameters, rounded_weights

__all__ = ["Precision", "backend_flags", "dtype_of", "set_precision"]

Precision = Literal["fp32", "tf32", "bf16", "fp16"]
"""`tf32` is float32 whose products CUDA may round to 10 bits; on other devices it equals `fp32`."""

_NARROW = {"bf16": torch.bfloat16, "fp16": torch.float16}

_RECOMPILE_LIMIT = 128


def dtype_of(precision: Precision) -> torch.dtype:
    """The dtype that convolutions and matrix products round their inputs to."""
    return _NARROW.get(precision, torch.float32)


def set_precision(
    precision: Precision, network: nn.Module, device: torch.device, *, shares_weights: bool = False
) -> None:
    """Set the precision that a network computes in, in place; its inputs, outputs and parameters stay float32.

    For `bf16` and `fp16`, every call runs under `torch.autocast`: convolutions and matrix products round their inputs,
    normalization keeps float32 statistics. `fp32` and `tf32` leave the network unchanged; `backend_flags` switches TF32.

    Args:
        precision: The precision.
        network: Any network.
        device: The device of the network.
        shares_weights: Round weights once for all calls inside `gantoolkit.runtime.rounding.shared_weights`. Only for a network
            with the trait `narrow_weights`.
    """
    if precision not in _NARROW:
        return
    forward = _Forward(network)
    names = rounded_parameters(network, device) if shares_weights else []
    if device.type == "meta":
        network.forward = functools.partial(_forward_rounded, forward, names, _NARROW[precision])
    else:
        network.forward = functools.partial(_forward_autocast, forward, names, device.type, _NARROW[precision])


@contextmanager
def backend_flags(precision: Precision, *, try_algorithms: bool, compiles: bool = False) -> Iterator[None]:
    """Context manager that sets flags of CUDA, cuDNN and torch.compile, and restores them on exit.

    Args:
        precision: TF32 products are allowed for `tf32` only.
        try_algorithms: Let cuDNN time its algorithms at each new input size and use the fastest (`cudnn.benchmark`). The choice
            may differ from run to run.
        compiles: Networks are compiled. Several of them share the code of `forward`, and each is compiled for training, for
            samples and for each size; torch.compile would give up after eight times.
    """
    switches: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    previous, previous_benchmark = [switch.allow_tf32 for switch in switches], torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = try_algorithms
    for switch in switches:
        switch.allow_tf32 = precision == "tf32"
    try:
        with _raised_recompile_limit() if compiles else nullcontext():
            yield
    finally:
        for switch, allowed in zip(switches, previous, strict=True):
            switch.allow_tf32 = allowed
        torch.backends.cudnn.benchmark = previous_benchmark


def _raised_recompile_limit() -> AbstractContextManager[None]:
    import torch._dynamo.config

    return torch._dynamo.config.patch(recompile_limit=_RECOMPILE_LIMIT)


class _Forward(nn.Module):
    """Calls the original `forward` of a network, also with other parameters."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.original_forward = network.forward

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.original_forward(*args, **kwargs)

    def call_with(self, parameters: Mapping[str, Tensor], args: Any, kwargs: Any) -> Any:
        """Call it with these parameters, by their names in the network, in place of its own."""
        tensors = {f"network.{name}": tensor for name, tensor in parameters.items()}
        return torch.func.functional_call(self, tensors, args, kwargs)


def _forward_autocast(
    forward: _Forward, names: Sequence[str], device: str, dtype: torch.dtype, *args: Any, **kwargs: Any
) -> Any:
    weights = rounded_weights(forward.network, names, dtype)
    # Autocast's own cache would hold copies of all weights even if a weight is used once, and it breaks CUDA graphs.
    with torch.autocast(device, dtype, cache_enabled=False):
        output = forward(*args, **kwargs) if weights is None else forward.call_with(weights, args, kwargs)
    return _to_float32(output)


def _forward_rounded(forward: _Forward, names: Sequence[str], dtype: torch.dtype, *args: Any, **kwargs: Any) -> Any:
    """Stand in for autocast, which does not support the meta device: round all parameters and inputs."""

    def round_tensor(tensor: Tensor) -> Tensor:
        return tensor.to(dtype) if tensor.is_floating_point() else tensor

    weights = rounded_weights(forward.network, names, dtype) or {}
    others = {name: weight for name, weight in forward.network.named_parameters() if name not in weights}
    parameters = {**weights, **{name: round_tensor(weight) for name, weight in others.items()}}
    args, kwargs = tree_map_only(Tensor, round_tensor, (args, kwargs))
    return _to_float32(forward.call_with(parameters, args, kwargs))


def _to_float32(tree: Any) -> Any:
    return tree_map_only(Tensor, lambda tensor: tensor.float() if tensor.dtype in _NARROW.values() else tensor, tree)

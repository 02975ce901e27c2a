"""The floating-point precision of networks. Images, logits, losses, weights and optimizer states stay float32."""

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from statistics import median
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils._pytree import tree_map_only

__all__ = [
    "Precision",
    "backend_flags",
    "choose_precision",
    "dtype_of",
    "round_weights",
    "set_precision",
    "shared_casts",
]

Precision = Literal["fp32", "tf32", "bf16", "fp16"]
"""`tf32` is float32 whose products CUDA may round to 10 bits; on other devices it equals `fp32`."""

_NARROW = {"bf16": torch.bfloat16, "fp16": torch.float16}

_RECOMPILE_LIMIT = 128

_ROUNDING_FORWARDS = (
    *(layer.forward for layer in (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)),
    *(layer.forward for layer in (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)),
)
"""Of layers whose inputs autocast rounds."""

_MINIMUM_SPEEDUP = 1.2
"""`auto` chooses bfloat16 on a CPU from this speedup on."""


def dtype_of(precision: Precision) -> torch.dtype:
    """The dtype that convolutions and matrix products round their inputs to."""
    return _NARROW.get(precision, torch.float32)


def set_precision(precision: Precision, network: nn.Module, device: torch.device) -> None:
    """Set the precision that a network computes in, in place; its inputs, outputs and parameters stay float32.

    For `bf16` and `fp16`, every call runs under `torch.autocast`: convolutions and matrix products round their inputs,
    normalization keeps float32 statistics. `fp32` and `tf32` leave the network unchanged; `arithmetic` switches TF32.
    """
    if precision not in _NARROW:
        return
    if device.type == "meta":
        network.forward = functools.partial(_forward_rounded, _OriginalForward(network), _NARROW[precision])
    else:
        network.forward = functools.partial(_forward_autocast, network.forward, device.type, _NARROW[precision])


def shared_casts(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Context manager inside which networks in bf16 or fp16 round each weight once, not in every forward pass.

    The gradients of all passes are then added in this precision too. Call `torch.clear_autocast_cache` after an update of the
    weights.
    """
    # Autocast keeps its rounded weights until the outermost context ends.
    shares = precision in _NARROW and device.type != "meta"
    return torch.autocast(device.type, enabled=False) if shares else nullcontext()


def round_weights(precision: Precision, network: nn.Module, device: torch.device) -> None:
    """Store weights that autocast would round at every call already rounded, in place; results stay the same bit for bit.

    For networks that are not trained any more. These are the weights and biases of convolutions and linear layers. A CPU's
    Winograd convolutions transform their weights before they round them, so `Conv3x3` keeps float32 there.

    Args:
        precision: The precision that `set_precision` has set; `fp32` and `tf32` leave the network unchanged.
        network: A network with the trait `narrow_weights`.
        device: The device of the network.
    """
    from gantoolkit.layers.convolution import Conv3x3

    if precision not in _NARROW:
        return
    for layer in network.modules():
        if type(layer).forward not in _ROUNDING_FORWARDS or "forward" in vars(layer):
            continue
        # A parametrized weight, or one that a hook computes, is not stored in the layer.
        computes_weights = parametrize.is_parametrized(layer) or layer._forward_pre_hooks
        transforms_weights = device.type == "cpu" and isinstance(layer, Conv3x3)
        if not computes_weights and not transforms_weights:
            layer.to(dtype_of(precision))


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


def choose_precision(device: torch.device) -> Precision:
    """Resolve `auto`: bfloat16 (or float16) on CUDA devices that support it, on a CPU where it is measured to be faster."""
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        return "bf16" if capability >= (8, 0) else "fp16" if capability >= (7, 0) else "fp32"
    if device.type == "cpu":
        return _probe_cpu()
    return "fp32"


@functools.cache
def _probe_cpu() -> Precision:
    """Time the most common convolution of a generator in both precisions, alternating. Takes half a second."""
    from gantoolkit.layers.convolution import Conv3x3

    layer = Conv3x3(256, 256).to(memory_format=torch.channels_last)
    with torch.random.fork_rng(devices=[]):
        features = torch.randn(1, 256, 34, 34).contiguous(memory_format=torch.channels_last).requires_grad_()
    seconds: dict[Precision, list[float]] = {"fp32": [], "bf16": []}
    for _ in range(7):
        for precision, times in seconds.items():
            start = time.perf_counter()
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                output = layer(features)
            output.sum().backward()
            times.append(time.perf_counter() - start)
    return "bf16" if median(seconds["fp32"]) > _MINIMUM_SPEEDUP * median(seconds["bf16"]) else "fp32"


def _forward_autocast(forward: Callable[..., Any], device: str, dtype: torch.dtype, *args: Any, **kwargs: Any) -> Any:
    # A weight that is rounded without gradient must not be found by a call with gradient.
    with torch.autocast(device, dtype, cache_enabled=torch.is_grad_enabled()):
        output = forward(*args, **kwargs)
    return _to_float32(output)


class _OriginalForward(nn.Module):
    """Wraps a network to call its original `forward` with other parameters."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.original_forward = network.forward

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.original_forward(*args, **kwargs)


def _forward_rounded(wrapper: _OriginalForward, dtype: torch.dtype, *args: Any, **kwargs: Any) -> Any:
    """Stand in for autocast, which does not support the meta device: round all parameters and inputs."""

    def round_tensor(tensor: Tensor) -> Tensor:
        return tensor.to(dtype) if tensor.is_floating_point() else tensor

    parameters = {name: round_tensor(parameter) for name, parameter in wrapper.named_parameters()}
    args, kwargs = tree_map_only(Tensor, round_tensor, (args, kwargs))
    return _to_float32(torch.func.functional_call(wrapper, parameters, args, kwargs))


def _to_float32(tree: Any) -> Any:
    return tree_map_only(Tensor, lambda tensor: tensor.float() if tensor.dtype in _NARROW.values() else tensor, tree)

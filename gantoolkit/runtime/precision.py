"""In which number format networks compute; images, logits, losses, weights and optimizers stay float32."""

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

__all__ = ["Precision", "arithmetic", "choose_precision", "compute_in"]

Precision = Literal["fp32", "tf32", "bf16", "fp16"]
"""`tf32` is float32 whose products CUDA may round to 10 bits; elsewhere it is `fp32`."""

_NARROW = {"bf16": torch.bfloat16, "fp16": torch.float16}

_WORTHWHILE = 1.2
"""How much sooner bfloat16 has to be done on a CPU before `auto` takes it."""


def compute_in(precision: Precision, network: nn.Module, device: torch.device) -> None:
    """Let a network compute in a precision, in place: what goes in and what comes out is float32 as before.

    Convolutions and matrix products round what they take in; normalization keeps float32 statistics. Parameters keep their
    type.
    """
    if precision not in _NARROW:
        return
    if device.type == "meta":
        network.forward = functools.partial(_round_all, _Frame(network), _NARROW[precision])
    else:
        network.forward = functools.partial(_narrow, network.forward, device.type, _NARROW[precision])


@contextmanager
def arithmetic(precision: Precision, *, try_algorithms: bool) -> Iterator[None]:
    """How CUDA computes meanwhile; restored afterwards. Products of float32 numbers are rounded for `tf32` alone.

    Args:
        try_algorithms: Time cuDNN's algorithms at each new size, and take the one that is soonest done; which that is may
            differ from run to run.
    """
    switches: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before, tries = [switch.allow_tf32 for switch in switches], torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = try_algorithms
    for switch in switches:
        switch.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        for switch, allowed in zip(switches, before, strict=True):
            switch.allow_tf32 = allowed
        torch.backends.cudnn.benchmark = tries


def choose_precision(device: torch.device) -> Precision:
    """What `auto` comes to on a device: bfloat16 where it has the hardware, on a CPU where it is sooner done, measured."""
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        return "bf16" if capability >= (8, 0) else "fp16" if capability >= (7, 0) else "fp32"
    if device.type == "cpu":
        return _probe_cpu()
    return "fp32"


@functools.cache
def _probe_cpu() -> Precision:
    """Time a generator's commonest convolution both ways, alternating; half a second."""
    from gantoolkit.layers.convolution import Conv3x3

    layer = Conv3x3(256, 256).to(memory_format=torch.channels_last)
    with torch.random.fork_rng(devices=[]):
        features = torch.randn(1, 256, 34, 34).contiguous(memory_format=torch.channels_last).requires_grad_()
    seconds: dict[Precision, list[float]] = {"fp32": [], "bf16": []}
    for _ in range(7):
        for precision, taken in seconds.items():
            began = time.perf_counter()
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                made = layer(features)
            made.sum().backward()
            taken.append(time.perf_counter() - began)
    return "bf16" if median(seconds["fp32"]) > _WORTHWHILE * median(seconds["bf16"]) else "fp32"


def _narrow(forward: Callable[..., Any], device: str, dtype: torch.dtype, *images: Any, **more: Any) -> Any:
    # Every weight is used once in a call: keeping its rounded form would only cost memory, and trouble a graph.
    with torch.autocast(device, dtype, cache_enabled=False):
        made = forward(*images, **more)
    return _widen(made)


class _Frame(nn.Module):
    """Holds a network whose `forward` is to be called as it was, with other parameters."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.inside = network.forward

    def forward(self, *images: Any, **more: Any) -> Any:
        return self.inside(*images, **more)


def _round_all(frame: _Frame, dtype: torch.dtype, *images: Any, **more: Any) -> Any:
    """Autocast does not know tensors without memory: there, all parameters and images are rounded, for their sizes alone."""

    def rounded(tensor: Tensor) -> Tensor:
        return tensor.to(dtype) if tensor.is_floating_point() else tensor

    parameters = {name: rounded(parameter) for name, parameter in frame.named_parameters()}
    images, more = tree_map_only(Tensor, rounded, (images, more))
    return _widen(torch.func.functional_call(frame, parameters, images, more))


def _widen(made: Any) -> Any:
    return tree_map_only(Tensor, lambda tensor: tensor.float() if tensor.dtype in _NARROW.values() else tensor, made)

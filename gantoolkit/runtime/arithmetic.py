"""The arithmetic of networks: their precision, and on a CPU the algorithm of their 3×3 convolutions, chosen by measurement."""

import functools
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import nn

from gantoolkit.errors import GantoolkitError
from gantoolkit.layers.convolution import Conv3x3, ConvolutionAlgorithm, can_use_winograd
from gantoolkit.layers.kernels.cpu_winograd import free_buffers
from gantoolkit.runtime.precision import Precision, dtype_of

__all__ = ["Arithmetic", "choose_arithmetic", "time_convolution"]

_SWITCH = "GANTOOLKIT_CONVOLUTION"

_MIN_SPEEDUP = 1.1
_MIN_SPEEDUP_OF_PRECISION = 1.2
"""Another algorithm, or a lower precision, is chosen from this speedup on: both round more, and a measurement is noisy."""

_MIN_ROUNDS, _MAX_ROUNDS, _MAX_SECONDS = 2, 6, 1.0
"""After the minimum, no round begins later than this. The first round, which allocates and prepares everything, is left out."""


@dataclass(frozen=True)
class Arithmetic:
    """What determines how the networks of a run round, apart from the recipe. It is chosen when a run starts, and then fixed.

    Args:
        precision: The precision of the networks.
        convolution: The algorithm of wide 3×3 convolutions on a CPU.
    """

    precision: Precision = "fp32"
    convolution: ConvolutionAlgorithm = "direct"


def choose_arithmetic(
    precision: Precision | Literal["auto"],
    device: torch.device,
    networks: Iterable[nn.Module] | None,
    *,
    trains: bool = True,
) -> Arithmetic:
    """Choose what is fastest on a device. On a CPU this is measured, unless the networks leave no choice.

    On CUDA, `auto` is bfloat16 or float16 if the device supports it. `GANTOOLKIT_CONVOLUTION=direct` or `winograd` in the
    environment determines the algorithm without a measurement.

    Args:
        precision: The precision of the networks, or `auto`.
        networks: On any device; None if they are unknown.
        trains: Whether gradients are computed.
    """
    if device.type != "cpu":
        return Arithmetic(_precision_of_device(device) if precision == "auto" else precision)
    networks = [_common_convolution("meta")] if networks is None else list(networks)
    precisions: Sequence[Precision] = ("fp32", "bf16") if precision == "auto" else (precision,)
    candidates = [Arithmetic(each, algorithm) for each in precisions for algorithm in _algorithms(each, networks)]
    if len(candidates) == 1:
        return candidates[0]
    return _fastest(candidates, time_convolution(tuple(candidates), trains=trains))


@functools.cache
def time_convolution(candidates: tuple[Arithmetic, ...], *, trains: bool) -> Mapping[Arithmetic, float]:
    """Time the most common convolution of a generator with each arithmetic, alternating; the least seconds of each.

    Other processes can only lengthen times. The convolution is that of residual blocks for images of 256×256. The result is
    cached. This takes less than a second on two cores, and not much longer if they are busy.

    Args:
        trains: Whether to time the backward pass, too.
    """
    seconds: dict[Arithmetic, list[float]] = {candidate: [] for candidate in candidates}
    with torch.random.fork_rng(devices=[]), torch.set_grad_enabled(trains):
        layer = _common_convolution("cpu").to(memory_format=torch.channels_last)
        features = torch.randn(1, 256, 66, 66).contiguous(memory_format=torch.channels_last).requires_grad_(trains)
        start = time.perf_counter()
        for number in range(_MAX_ROUNDS):
            if number >= _MIN_ROUNDS and time.perf_counter() - start > _MAX_SECONDS:
                break
            for candidate, times in seconds.items():
                layer.algorithm = candidate.convolution
                times.append(_time_layer(layer, features, candidate.precision))
    free_buffers()
    return {candidate: min(times[1:]) for candidate, times in seconds.items()}


def _common_convolution(device: str) -> Conv3x3:
    with torch.device(device):
        return Conv3x3(256, 256)


def _time_layer(layer: Conv3x3, features: torch.Tensor, precision: Precision) -> float:
    start = time.perf_counter()
    with torch.autocast("cpu", dtype_of(precision), enabled=dtype_of(precision) != torch.float32, cache_enabled=False):
        output = layer(features)
    if output.requires_grad:
        output.backward(torch.ones_like(output))
    return time.perf_counter() - start


def _fastest(candidates: Sequence[Arithmetic], seconds: Mapping[Arithmetic, float]) -> Arithmetic:
    """The fastest candidate; one that rounds more than those before it has to be faster by a margin."""
    choice = candidates[0]
    for candidate in candidates[1:]:
        lowers_precision = candidate.precision != choice.precision
        margin = _MIN_SPEEDUP_OF_PRECISION if lowers_precision else _MIN_SPEEDUP
        if seconds[choice] > margin * seconds[candidate]:
            choice = candidate
    return choice


def _algorithms(precision: Precision, networks: Sequence[nn.Module]) -> Sequence[ConvolutionAlgorithm]:
    """The algorithms to choose from, in the order of their rounding errors."""
    dtype = dtype_of(precision)
    if not any(can_use_winograd(network, dtype) for network in networks):
        return ("direct",)
    known: tuple[ConvolutionAlgorithm, ...] = get_args(ConvolutionAlgorithm)
    name = os.environ.get(_SWITCH, "")
    if name and name not in known:
        raise GantoolkitError(f"{_SWITCH}={name}: is not an algorithm; use {' or '.join(known)}, or unset it")
    return tuple(algorithm for algorithm in known if name in ("", algorithm))


def _precision_of_device(device: torch.device) -> Precision:
    if device.type != "cuda":
        return "fp32"
    capability = torch.cuda.get_device_capability(device)
    return "bf16" if capability >= (8, 0) else "fp16" if capability >= (7, 0) else "fp32"

"""The convolution of residual blocks: PyTorch's, or Winograd's on a CPU where it is faster."""

from typing import Literal

import torch
from torch import Tensor, nn

from gantoolkit.layers.kernels.cpu_winograd import TILE, winograd_convolution

__all__ = ["Conv3x3", "ConvolutionAlgorithm", "can_use_winograd", "set_convolution"]

ConvolutionAlgorithm = Literal["direct", "winograd"]
"""`direct` is PyTorch's convolution. `winograd` is Winograd's algorithm on a CPU, from a minimum size on, and else `direct`."""

_MIN_CHANNELS = {torch.float32: 128, torch.bfloat16: 256}
_MIN_CHANNEL_TILES = {torch.float32: 2**16, torch.bfloat16: 2**18}
"""Channels × tiles from which on Winograd's algorithm can be faster; see benchmarks/convolution.py."""


class Conv3x3(nn.Conv2d):
    """A 3×3 convolution of stride 1 without padding: (N, in_channels, H, W) to (N, out_channels, H − 2, W − 2).

    Under autocast, the layer computes in and returns autocast's dtype.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        bias: Whether to add a learnable bias.

    Attributes:
        algorithm: `winograd` by default. Which algorithm is faster depends on the CPU; see
            `gantoolkit.runtime.arithmetic.choose_arithmetic`.
    """

    algorithm: ConvolutionAlgorithm = "winograd"

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 3, bias=bias)

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        narrow = torch.is_autocast_enabled("cpu") and input.dtype == torch.float32
        dtype = torch.get_autocast_dtype("cpu") if narrow else input.dtype
        if not self._uses_winograd(input, dtype):
            return super()._conv_forward(input, weight, bias)
        output = winograd_convolution(input.to(dtype), weight)
        return output if bias is None else output + bias.to(dtype)[:, None, None]

    def _uses_winograd(self, features: Tensor, dtype: torch.dtype) -> bool:
        if torch.compiler.is_exporting():  # an exported graph takes any size, so it cannot choose by size
            return False
        if self.algorithm == "direct" or features.device.type != "cpu" or not _is_wide(self, dtype):
            return False
        down, right = TILE[dtype]
        tiles = len(features) * -(-(features.shape[-2] - 2) // down) * -(-(features.shape[-1] - 2) // right)
        return min(self.in_channels, self.out_channels) * tiles >= _MIN_CHANNEL_TILES[dtype]


def set_convolution(network: nn.Module, algorithm: ConvolutionAlgorithm) -> None:
    """Set the algorithm of every `Conv3x3` in a network, in place."""
    for layer in network.modules():
        if isinstance(layer, Conv3x3):
            layer.algorithm = algorithm


def can_use_winograd(network: nn.Module, dtype: torch.dtype) -> bool:
    """Whether a network has a `Conv3x3` with enough channels for Winograd's algorithm in `dtype`."""
    return any(isinstance(layer, Conv3x3) and _is_wide(layer, dtype) for layer in network.modules())


def _is_wide(layer: Conv3x3, dtype: torch.dtype) -> bool:
    return dtype in _MIN_CHANNELS and min(layer.in_channels, layer.out_channels) >= _MIN_CHANNELS[dtype]

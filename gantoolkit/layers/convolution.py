"""The convolution of residual blocks: PyTorch's, or Winograd's on a CPU where it is faster."""

import torch
from torch import Tensor, nn

from gantoolkit.layers.kernels.cpu_winograd import TILE, winograd_convolution

__all__ = ["Conv3x3"]

_MIN_CHANNELS = {torch.float32: 128, torch.bfloat16: 256}
_MIN_CHANNEL_TILES = {torch.float32: 2**14, torch.bfloat16: 2**17}
"""Channels × tiles from which on Winograd's algorithm is faster; see benchmarks/convolution.py."""


class Conv3x3(nn.Conv2d):
    """A 3×3 convolution of stride 1 without padding: (N, in_channels, H, W) to (N, out_channels, H − 2, W − 2).

    The algorithm depends on dtypes and shapes only, so it is the same in every run. Under autocast, the layer computes in and
    returns autocast's dtype.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        bias: Whether to add a learnable bias.
    """

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 3, bias=bias)

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        narrow = torch.is_autocast_enabled("cpu") and input.dtype == torch.float32
        dtype = torch.get_autocast_dtype("cpu") if narrow else input.dtype
        if not self._is_winograd_faster(input, dtype):
            return super()._conv_forward(input, weight, bias)
        output = winograd_convolution(input.to(dtype), weight)
        return output if bias is None else output + bias.to(dtype)[:, None, None]

    def _is_winograd_faster(self, features: Tensor, dtype: torch.dtype) -> bool:
        if torch.compiler.is_exporting():  # an exported graph takes any size, so it cannot choose by size
            return False
        if features.device.type != "cpu" or dtype not in _MIN_CHANNEL_TILES:
            return False
        down, right = TILE[dtype]
        tiles = len(features) * -(-(features.shape[-2] - 2) // down) * -(-(features.shape[-1] - 2) // right)
        channels = min(self.in_channels, self.out_channels)
        return channels >= _MIN_CHANNELS[dtype] and channels * tiles >= _MIN_CHANNEL_TILES[dtype]

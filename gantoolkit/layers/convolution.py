"""The convolution of residual blocks: PyTorch's, and on a CPU, where that is sooner done, Winograd's."""

import torch
from torch import Tensor, nn

from gantoolkit.layers.kernels.cpu_winograd import TILE, winograd_convolution

__all__ = ["Conv3x3"]

_LEAST_CHANNELS = {torch.float32: 128, torch.bfloat16: 256}
_LEAST_WORK = {torch.float32: 2**14, torch.bfloat16: 2**17}
"""Channels × tiles from which on transforming pays; see benchmarks/convolution.py."""


class Conv3x3(nn.Conv2d):
    """A 3×3 convolution of stride 1 without padding.

    Which algorithm it takes depends on types and shapes alone, so that it is the same in every run. Within autocast it
    computes, and returns, autocast's type.

    Args:
        in_channels: Channels of what comes in.
        out_channels: Channels of what goes out.
        bias: Whether there is one.
    """

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 3, bias=bias)

    def forward(self, input: Tensor) -> Tensor:
        """Convolve (N, in_channels, H, W): (N, out_channels, H − 2, W − 2)."""
        narrow = torch.is_autocast_enabled("cpu") and input.dtype == torch.float32
        dtype = torch.get_autocast_dtype("cpu") if narrow else input.dtype
        if not self._is_sooner_transformed(input, dtype):
            return super().forward(input)
        made = winograd_convolution(input.to(dtype), self.weight)
        return made if self.bias is None else made + self.bias.to(dtype)[:, None, None]

    def _is_sooner_transformed(self, features: Tensor, dtype: torch.dtype) -> bool:
        if torch.compiler.is_exporting():  # for other programs and any size: a graph knows no choice by size
            return False
        if features.device.type != "cpu" or dtype not in _LEAST_WORK:
            return False
        down, right = TILE[dtype]
        tiles = len(features) * -(-(features.shape[-2] - 2) // down) * -(-(features.shape[-1] - 2) // right)
        fewest = min(self.in_channels, self.out_channels)
        return fewest >= _LEAST_CHANNELS[dtype] and fewest * tiles >= _LEAST_WORK[dtype]

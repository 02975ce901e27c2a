"""The normalizations that generators and discriminators choose from by name."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from gantoolkit.layers.kernels.cpu_instance_norm import channels_last_instance_norm
from gantoolkit.layers.kernels.reference import instance_norm

Normalization = Literal["instance", "instance_affine", "batch", "none"]
"""`instance` has neither weights nor running statistics, as in the official PyTorch implementation of CycleGAN;
`instance_affine` has weights, as in its authors' earlier code; `batch` has both."""


def normalization(name: Normalization, channels: int, *, running: bool = True) -> nn.Module:
    """A normalization layer for `channels` feature maps.

    Args:
        running: Whether batch norm, once trained, uses the statistics that it gathered while training, or still those of
            the images at hand.
    """
    if name in ("instance", "instance_affine"):
        return InstanceNorm(channels, affine=name == "instance_affine")
    if name == "batch":
        return nn.BatchNorm2d(channels, track_running_stats=running)
    return nn.Identity()


class InstanceNorm(nn.InstanceNorm2d):
    """PyTorch's instance norm, that leaves features on a CPU in channels_last if they came so.

    Statistics are float32 for narrower features.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalize each channel of each image (N, C, H, W) over H and W; the same shape and type."""
        if input.ndim != 4 or self.track_running_stats:
            return super().forward(input)
        settings = {"weight": self.weight, "bias": self.bias, "eps": self.eps}
        if torch.compiler.is_exporting():
            return functional.instance_norm(input, **settings)  # one operation for other programs too
        if torch.compiler.is_compiling():
            return instance_norm(input, **settings)  # which is fused with what is around it
        if input.device.type != "cpu" or input.shape[2:].numel() == 1:
            return functional.instance_norm(input, **settings)
        if not input.is_contiguous() and input.is_contiguous(memory_format=torch.channels_last):
            return channels_last_instance_norm(input, **settings)
        if input.dtype in (torch.bfloat16, torch.float16):
            return instance_norm(input, **settings)
        made = functional.instance_norm(input, **settings)
        if made.requires_grad:  # see gantoolkit.runtime.memory_format.arrange
            made.register_hook(torch.Tensor.contiguous)
        return made


def needs_bias(name: Normalization) -> bool:
    """Whether a convolution in front of the layer carries a bias.

    In front of batch norm it is redundant and left out; in front of instance norm it is redundant too, but the official
    implementation has it, and with it the parameter counts of the paper's networks.
    """
    return name != "batch"

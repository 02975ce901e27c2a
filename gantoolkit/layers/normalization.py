"""The normalization layers of generators and discriminators, selected by name."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from gantoolkit.layers.kernels.cpu_instance_norm import channels_last_instance_norm
from gantoolkit.layers.kernels.reference import instance_norm

Normalization = Literal["instance", "instance_affine", "batch", "none"]
"""`instance` has neither weights nor running statistics, as in the official PyTorch implementation of CycleGAN;
`instance_affine` has weights, as in its authors' earlier code; `batch` has weights and running statistics."""

_INSTANCE_NORMS = ("instance", "instance_affine")


def normalization(name: Normalization, channels: int, *, running: bool = True) -> nn.Module:
    """Create a normalization layer for `channels` feature maps.

    Args:
        running: Whether batch norm in evaluation mode uses running statistics, or the statistics of the current batch.
    """
    if name in _INSTANCE_NORMS:
        return InstanceNorm(channels, affine=name == "instance_affine")
    if name == "batch":
        return nn.BatchNorm2d(channels, track_running_stats=running)
    return nn.Identity()


class InstanceNorm(nn.InstanceNorm2d):
    """PyTorch's instance norm, except that it preserves channels_last on a CPU.

    Statistics of bfloat16 and float16 features are float32.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalize each channel of each image (N, C, H, W) over H and W; same shape and dtype."""
        if input.ndim != 4 or self.track_running_stats:
            return super().forward(input)
        settings = {"weight": self.weight, "bias": self.bias, "eps": self.eps}
        if torch.compiler.is_exporting():
            return functional.instance_norm(input, **settings)  # a single operator in the exported graph
        if torch.compiler.is_compiling():
            return instance_norm(input, **settings)  # the compiler fuses it with the layers around it
        if input.device.type != "cpu" or input.shape[2:].numel() == 1:
            return functional.instance_norm(input, **settings)
        if not input.is_contiguous() and input.is_contiguous(memory_format=torch.channels_last):
            return channels_last_instance_norm(input, **settings)
        if input.dtype in (torch.bfloat16, torch.float16):
            return instance_norm(input, **settings)
        output = functional.instance_norm(input, **settings)
        if output.requires_grad:  # see gantoolkit.runtime.memory_format.set_memory_format
            output.register_hook(torch.Tensor.contiguous)
        return output


def needs_bias(name: Normalization) -> bool:
    """Whether a convolution before the layer has a bias.

    Before batch norm a bias is redundant and omitted. Before instance norm it is redundant too, but the official implementation
    has it, and it belongs to the parameter counts of the paper's networks; see `normalize_output`.
    """
    return name != "batch"


def normalize_output(
    convolution: nn.Conv2d | nn.ConvTranspose2d, name: Normalization, *, running: bool = True
) -> list[nn.Module]:
    """Return a convolution and the `normalization` of its output. Before instance norm, its bias is frozen at 0.

    Instance norm subtracts the mean of each channel, and with it the bias, so that the gradient of the bias is rounding noise.
    A frozen bias stays in the `state_dict`, costs neither a gradient nor an optimizer step, and lets
    `gantoolkit.layers.fused.Chain` omit the sum.
    """
    if name in _INSTANCE_NORMS and convolution.bias is not None:
        nn.init.zeros_(convolution.bias.requires_grad_(False))
    return [convolution, normalization(name, convolution.out_channels, running=running)]

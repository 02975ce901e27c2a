"""The fused instance norm in plain PyTorch, for every device and dtype; differentiable any number of times."""

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["instance_norm"]


def instance_norm(
    features: Tensor,
    *,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    slope: float | None = None,
    residual: Tensor | None = None,
    pad: int = 0,
) -> Tensor:
    """Apply instance norm, then an activation, a residual sum and reflection padding.

    Statistics and intermediate values are at least float32. The result, (N, C, H + 2·pad, W + 2·pad), has the dtype of
    `features`.

    Args:
        features: (N, C, H, W) with more than one pixel.
        weight: (C,), multiplies each normalized channel.
        bias: (C,), added to each channel.
        eps: Added to the variance.
        slope: Negative slope of the activation: 0 for ReLU, 0.2 for PatchGAN's LeakyReLU, None for no activation.
        residual: (N, C, H, W), added after the activation.
        pad: Pixels of reflection padding on each side.
    """
    wide = features.to(torch.promote_types(features.dtype, torch.float32))
    # Not functional.instance_norm: its CPU gradient for one image is wrong if the incoming one is channels_last (torch 2.15).
    variance, mean = torch.var_mean(wide, dim=(2, 3), correction=0, keepdim=True)
    output = (wide - mean) * torch.rsqrt(variance + eps)
    if weight is not None:
        output = output * weight.to(wide.dtype)[:, None, None]
    if bias is not None:
        output = output + bias.to(wide.dtype)[:, None, None]
    if slope is not None:
        output = functional.leaky_relu(output, slope)
    if residual is not None:
        output = output + residual
    return functional.pad(output.to(features.dtype), [pad] * 4, mode="reflect") if pad else output.to(features.dtype)

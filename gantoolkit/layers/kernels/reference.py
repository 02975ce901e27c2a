"""What the fused instance norm computes, in plain torch: for every device and type, differentiable any number of times."""

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
    """Normalize each image and channel over its pixels, with what follows in a network.

    Statistics and all that is computed between are float32 at least; the result, (N, C, H + 2·pad, W + 2·pad), has the type
    of `features`.

    Args:
        features: (N, C, H, W) with more than one pixel.
        weight: (C,), what each normalized channel is multiplied by.
        bias: (C,), what is then added.
        eps: Added to the variance.
        slope: What negative numbers are then multiplied by: 0 for ReLU, 0.2 for PatchGAN's LeakyReLU; None leaves them.
        residual: (N, C, H, W), added in the end.
        pad: Pixels of reflection padding on each side.
    """
    wide = features.to(torch.promote_types(features.dtype, torch.float32))
    # Not functional.instance_norm: its gradient on the CPU is wrong for one image if it arrives in channels_last (torch 2.15).
    variance, mean = torch.var_mean(wide, dim=(2, 3), correction=0, keepdim=True)
    made = (wide - mean) * torch.rsqrt(variance + eps)
    if weight is not None:
        made = made * weight.to(wide.dtype)[:, None, None]
    if bias is not None:
        made = made + bias.to(wide.dtype)[:, None, None]
    if slope is not None:
        made = functional.leaky_relu(made, slope)
    if residual is not None:
        made = made + residual
    return functional.pad(made.to(features.dtype), [pad] * 4, mode="reflect") if pad else made.to(features.dtype)

"""Instance norm on a CPU for features in channels_last, with its result in channels_last too."""

from typing import Any

import torch
from torch import Tensor

__all__ = ["channels_last_instance_norm"]


def channels_last_instance_norm(
    features: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, *, eps: float = 1e-5
) -> Tensor:
    """Normalise each channel of each image by its own mean and variance, which are float32 also for narrower features.

    The instance norm of one image is the batch norm of a batch of one, and for that ATen has kernels that read and write
    channels_last; its own instance norm turns everything into the other order.

    Args:
        features: (N, C, H, W) in channels_last, with more than one pixel.
        weight: (C,), multiplies what is normalised.
        bias: (C,), is added to it.
        eps: Added to the variance.
    """
    wide = torch.promote_types(features.dtype, torch.float32)
    # With weights wider than the features, ATen keeps the statistics as wide.
    weight = torch.ones(features.shape[1], dtype=wide) if weight is None else weight.to(wide)
    bias = torch.zeros(features.shape[1], dtype=wide) if bias is None else bias.to(wide)
    return _InstanceNorm.apply(features, weight, bias, eps)


class _InstanceNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        made = torch.empty_like(features)
        means, deviations = weight.new_empty(2, *features.shape[:2]).unbind()
        for image, *out in zip(features.split(1), made.split(1), means, deviations, strict=True):
            torch.native_batch_norm(image, weight, bias, None, None, True, 0.0, eps, out=out)
        ctx.save_for_backward(features, weight, means, deviations)
        ctx.eps = eps
        return made

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        features, weight, means, deviations = ctx.saved_tensors
        (gradient,) = gradients
        slopes = gradient.contiguous(memory_format=torch.channels_last).split(1)
        wanted = ctx.needs_input_grad[:3]
        parts = [
            torch.ops.aten.native_batch_norm_backward(
                slope,
                image,
                weight,
                None,
                None,
                mean,
                deviation,
                True,
                ctx.eps,
                wanted,
            )
            for slope, image, mean, deviation in zip(slopes, features.split(1), means, deviations, strict=True)
        ]
        to_features, to_weight, to_bias = zip(*parts, strict=True)
        return (
            (to_features[0] if len(parts) == 1 else torch.cat(to_features)) if wanted[0] else None,
            torch.stack(to_weight).sum(0) if wanted[1] else None,
            torch.stack(to_bias).sum(0) if wanted[2] else None,
            None,
        )

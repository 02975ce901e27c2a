"""Instance norm on a CPU for features in channels_last, with its result in channels_last too."""

from typing import Any

import torch
from torch import Tensor

__all__ = ["channels_last_instance_norm"]

_RUN = 1024
"""The most pixels that are added to one sum in float32."""


def channels_last_instance_norm(
    features: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, *, eps: float = 1e-5
) -> Tensor:
    """Normalize each channel of each image by its own mean and variance, which are float32 also for narrower features.

    The instance norm of one image is the batch norm of a batch of one, and for that ATen has kernels that read and write
    channels_last; its own instance norm turns everything into the other order.

    Args:
        features: (N, C, H, W) in channels_last, with more than one pixel.
        weight: (C,), multiplies what is normalized.
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
        means, variances = weight.new_empty(2, *features.shape[:2]).unbind()
        unused = weight.new_empty(0), weight.new_empty(0)
        for image, out, mean, variance in zip(features.split(1), made.split(1), means, variances, strict=True):
            _measure(image, mean, variance)
            torch.native_batch_norm(image, weight, bias, mean, variance, False, 0.0, eps, out=(out, *unused))
        ctx.save_for_backward(features, weight, means, (variances + eps).rsqrt())
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


def _measure(image: Tensor, mean: Tensor, variance: Tensor) -> None:
    """Put the mean and variance of each channel of one image in channels_last into (C,) each.

    ATen adds up all the pixels of a channel one after the other, in float32: at 2048² a result is wrong by up to 2e-3. So
    pixels are taken for more channels, of which each has few, and these channels' statistics are put together in float64.
    """
    channels, pixels = image.shape[1], image.shape[2:].numel()
    parts = 1 << ((pixels - 1) // _RUN).bit_length()
    each = pixels // parts
    in_order = image.permute(0, 2, 3, 1).reshape(pixels, channels)
    # What the numbers here would be added to is thrown away; its type is that of the statistics.
    nothing = mean.new_zeros(parts * channels), mean.new_zeros(parts * channels)
    found = torch.batch_norm_update_stats(in_order[: each * parts].view(each, parts * channels), *nothing, 0.0)
    means, variances = (numbers.view(parts, channels).double() for numbers in found)
    spread, middle = torch.var_mean(means, 0, correction=0)
    within = variances.mean(0) + spread
    if each * parts < pixels:
        share = 1 - each * parts / pixels
        rest_variance, rest_middle = torch.var_mean(in_order[each * parts :].double(), 0, correction=0)
        gap = rest_middle - middle
        within = within + share * (rest_variance - within) + share * (1 - share) * gap.square()
        middle = middle + share * gap
    mean.copy_(middle)
    variance.copy_(within)

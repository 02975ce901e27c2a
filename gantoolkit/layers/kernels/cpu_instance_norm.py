"""Instance norm on a CPU that reads and writes channels_last."""

from typing import Any

import torch
from torch import Tensor

__all__ = ["channels_last_instance_norm"]

_MAX_SUMMANDS = 1024
"""The maximum number of pixels in one float32 sum."""


def channels_last_instance_norm(
    features: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, *, eps: float = 1e-5
) -> Tensor:
    """Normalize each channel of each image by its own mean and variance, which are at least float32.

    The instance norm of one image is the batch norm of a batch of one. ATen's batch norm has channels_last kernels; its
    instance norm converts everything to contiguous tensors.

    Args:
        features: (N, C, H, W) in channels_last, with more than one pixel.
        weight: (C,), multiplies each normalized channel.
        bias: (C,), added to each channel.
        eps: Added to the variance.
    """
    wide = torch.promote_types(features.dtype, torch.float32)
    # ATen computes the statistics in the dtype of the weights if that is wider than the features.
    weight = torch.ones(features.shape[1], dtype=wide) if weight is None else weight.to(wide)
    bias = torch.zeros(features.shape[1], dtype=wide) if bias is None else bias.to(wide)
    return _InstanceNorm.apply(features, weight, bias, eps)


class _InstanceNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        output = torch.empty_like(features)
        means, variances = weight.new_empty(2, *features.shape[:2]).unbind()
        unused = weight.new_empty(0), weight.new_empty(0)
        for image, normalized, mean, variance in zip(features.split(1), output.split(1), means, variances, strict=True):
            _measure(image, mean, variance)
            torch.native_batch_norm(image, weight, bias, mean, variance, False, 0.0, eps, out=(normalized, *unused))
        ctx.save_for_backward(features, weight, means, (variances + eps).rsqrt())
        ctx.eps = eps
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        features, weight, means, deviations = ctx.saved_tensors
        (gradient,) = gradients
        slices = gradient.contiguous(memory_format=torch.channels_last).split(1)
        needed = ctx.needs_input_grad[:3]
        parts = [
            torch.ops.aten.native_batch_norm_backward(
                *(piece, image, weight, None, None, mean, deviation, True, ctx.eps, needed)
            )
            for piece, image, mean, deviation in zip(slices, features.split(1), means, deviations, strict=True)
        ]
        to_features, to_weight, to_bias = zip(*parts, strict=True)
        return (
            (to_features[0] if len(parts) == 1 else torch.cat(to_features)) if needed[0] else None,
            torch.stack(to_weight).sum(0) if needed[1] else None,
            torch.stack(to_bias).sum(0) if needed[2] else None,
            None,
        )


def _measure(image: Tensor, mean: Tensor, variance: Tensor) -> None:
    """Write the mean and variance of each channel of a channels_last image to `mean` and `variance`, (C,) each.

    ATen sums all pixels of a channel sequentially in float32, with an error of up to 2e-3 at 2048². Here, the pixels are viewed
    as more channels with fewer pixels each, and the statistics of these parts are combined in float64.
    """
    channels, pixels = image.shape[1], image.shape[2:].numel()
    parts = 1 << ((pixels - 1) // _MAX_SUMMANDS).bit_length()
    part_pixels = pixels // parts
    rows = image.permute(0, 2, 3, 1).reshape(pixels, channels)
    # Running statistics are discarded; their dtype determines that of the statistics.
    running_statistics = mean.new_zeros(parts * channels), mean.new_zeros(parts * channels)
    columns = rows[: part_pixels * parts].view(part_pixels, parts * channels)
    statistics = torch.batch_norm_update_stats(columns, *running_statistics, 0.0)
    means, variances = (values.view(parts, channels).double() for values in statistics)
    between, total_mean = torch.var_mean(means, 0, correction=0)
    total_variance = variances.mean(0) + between
    if part_pixels * parts < pixels:
        share = 1 - part_pixels * parts / pixels
        rest_variance, rest_mean = torch.var_mean(rows[part_pixels * parts :].double(), 0, correction=0)
        gap = rest_mean - total_mean
        total_variance = total_variance + share * (rest_variance - total_variance) + share * (1 - share) * gap.square()
        total_mean = total_mean + share * gap
    mean.copy_(total_mean)
    variance.copy_(total_variance)

"""Instance norm of channels_last features, fused with the activation, the residual sum and the reflection padding after it.

Forward and backward take two launches each: the first computes sums over spans of pixels, the second combines them and
processes the pixels. For small images, one launch does both. Only the input and its statistics are saved for the backward pass.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from gantoolkit.layers.kernels.reference import instance_norm
from gantoolkit.layers.kernels.triton_instance_norm_kernels import (
    measure,
    measure_and_normalize,
    measure_gradient,
    measure_gradient_and_propagate,
    normalize,
    propagate,
)
from gantoolkit.layers.kernels.triton_reflection_pad import check_pad
from gantoolkit.layers.kernels.triton_tiles import cut, cut_whole, in_channels_last, launch, statistics_dtype

__all__ = ["fused_instance_norm", "fused_instance_norm_and_pad"]

_MAX_SPANS = 64
"""Maximum spans per image. Each program of the second launch reads the sums of all spans, at most 16 kB."""
_STAGES = 3
"""Pipeline stages: the number of tiles being loaded while another is summed."""


def fused_instance_norm(
    features: Tensor,
    *,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    slope: float | None = None,
    residual: Tensor | None = None,
    pad: int = 0,
) -> Tensor:
    """Compute `gantoolkit.layers.kernels.reference.instance_norm`, with the same parameters, in channels_last.

    Differentiable any number of times; higher derivatives use the reference function.
    `gantoolkit.layers.kernels.can_fuse` returns whether `features` are supported.

    Raises:
        ValueError: If `pad` is negative or not smaller than H and W, or `weight`, `bias` or `residual` do not match `features`.
    """
    tensors = _prepare(features, weight, bias, residual, pad)
    unpadded, padded = _InstanceNorm.apply(*tensors, eps, slope, pad, pad == 0)
    return padded if pad else unpadded


def fused_instance_norm_and_pad(
    features: Tensor,
    *,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    slope: float | None = None,
    residual: Tensor | None = None,
    pad: int,
) -> tuple[Tensor, Tensor]:
    """Compute the results of `fused_instance_norm` without and with padding.

    A residual block needs both: the first for its identity path, the second for its first convolution.

    Raises:
        ValueError: As for `fused_instance_norm`, and if `pad` is 0.
    """
    if pad == 0:
        raise ValueError("pad is 0, so there is one result, not two; use fused_instance_norm")
    tensors = _prepare(features, weight, bias, residual, pad)
    return _InstanceNorm.apply(*tensors, eps, slope, pad, True)


def _prepare(
    features: Tensor, weight: Tensor | None, bias: Tensor | None, residual: Tensor | None, pad: int
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """Check the shapes and convert the tensors to the memory formats that the kernels need."""
    check_pad(features, pad)
    for name, vector in (("weight", weight), ("bias", bias)):
        if vector is not None and vector.shape != features.shape[1:2]:
            raise ValueError(f"{name} has shape {tuple(vector.shape)}, but these features need ({features.shape[1]},)")
    if residual is not None and (residual.shape != features.shape or residual.dtype != features.dtype):
        raise ValueError(
            f"residual is {residual.dtype} {tuple(residual.shape)}, but the features are {features.dtype} "
            f"{tuple(features.shape)}"
        )
    return (
        in_channels_last(features),
        None if weight is None else weight.contiguous(),
        None if bias is None else bias.contiguous(),
        None if residual is None else in_channels_last(residual),
    )


class _InstanceNorm(torch.autograd.Function):
    """Return the result without padding if `keep`, else None, and the padded result if `pad`, else None."""

    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        residual: Tensor | None,
        eps: float,
        slope: float | None,
        pad: int,
        keep: bool,
    ) -> tuple[Tensor | None, Tensor | None]:
        images, channels, height, width = features.shape
        wide = statistics_dtype(features)
        unpadded = torch.empty_like(features, memory_format=torch.channels_last) if keep else None
        padded = None
        if pad:
            shape = (images, channels, height + 2 * pad, width + 2 * pad)
            padded = torch.empty(shape, dtype=features.dtype, device=features.device, memory_format=torch.channels_last)
        statistics = torch.empty(2, images, channels, dtype=wide, device=features.device)
        results = (weight, bias, residual, statistics, unpadded, padded)
        constants: dict[str, float | None] = {"EPS": eps, "SLOPE": slope, "PAD": pad}
        whole_cut = cut_whole(features)
        if whole_cut is not None:
            sizes = (images, height, width, channels)
            launch(measure_and_normalize, whole_cut, (features, *results), sizes, **constants)
        else:
            first_cut = cut(images, channels, height * width, max_spans=_MAX_SPANS)
            second_cut = cut(images, channels, (height + 2 * pad) * (width + 2 * pad))
            partials = torch.empty(images, first_cut.spans, 2, channels, dtype=wide, device=features.device)
            spans = (first_cut.spans, first_cut.span)
            launch(measure, first_cut, (features, partials), (height * width, channels, *spans), STAGES=_STAGES)
            sizes = (images, height, width, channels, *spans, second_cut.spans, second_cut.span)
            constants["SPANS"] = _round_up(first_cut.spans)
            launch(normalize, second_cut, (features, partials, *results), sizes, **constants)
        ctx.save_for_backward(features, weight, bias, statistics)
        ctx.eps, ctx.slope, ctx.pad = eps, slope, pad
        ctx.set_materialize_grads(False)
        return unpadded, padded

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Tensor | None, ...]:
        unpadded, padded = grad_outputs
        rest = (None,) * 4  # eps, slope, pad and keep have no gradient
        if unpadded is None and padded is None:
            return (*(None,) * 4, *rest)
        if torch.is_grad_enabled():  # create_graph: the gradient has to be differentiable
            return (*_plain_gradients(ctx, unpadded, padded), *rest)
        return (*_fused_gradients(ctx, unpadded, padded), *rest)


def _fused_gradients(ctx: Any, unpadded: Tensor | None, padded: Tensor | None) -> list[Tensor | None]:
    """The gradients of features, weight, bias and residual, from those of both results."""
    features, weight, bias, statistics = ctx.saved_tensors
    images, channels, height, width = features.shape
    for_features, for_weight, for_bias, for_residual = ctx.needs_input_grad[:4]
    unpadded = None if unpadded is None else in_channels_last(unpadded)
    padded = None if padded is None else in_channels_last(padded)
    result = torch.empty_like(features, memory_format=torch.channels_last)
    # The gradient of the sum is also that of the residual. Without a residual, it shares the memory of `result`.
    merged = unpadded if padded is None else torch.empty_like(result) if for_residual else result
    inputs = (features, statistics, weight, bias, unpadded, padded, None if padded is None else merged)
    constants = {"SLOPE": ctx.slope, "PAD": 0 if padded is None else ctx.pad}
    tiles = 1 if padded is None else 2  # padded gradients are sums of up to nine values, which need more registers
    sizes = (images, height, width, channels)
    whole_cut = cut_whole(features, tiles=2 * tiles)
    first_cut = whole_cut or cut(images, channels, height * width, max_spans=_MAX_SPANS, tiles=tiles)
    partials = torch.empty(images, first_cut.spans, 2, channels, dtype=statistics.dtype, device=features.device)
    if whole_cut is not None:
        tensors = (*inputs, partials, result if for_features else None)
        launch(measure_gradient_and_propagate, whole_cut, tensors, sizes, **constants)
    else:
        sizes = (*sizes, first_cut.spans, first_cut.span)
        launch(measure_gradient, first_cut, (*inputs, partials), sizes, **constants)
        if for_features:
            second_cut = cut(images, channels, height * width)
            tensors = (features, statistics, weight, bias, merged, partials, result)
            sizes = (*sizes, second_cut.spans, second_cut.span)
            launch(propagate, second_cut, tensors, sizes, SLOPE=ctx.slope, SPANS=_round_up(first_cut.spans))
    return [
        result if for_features else None,
        partials[:, :, 1].sum(dim=(0, 1)).to(weight.dtype) if for_weight else None,
        partials[:, :, 0].sum(dim=(0, 1)).to(bias.dtype) if for_bias else None,
        merged if for_residual else None,
    ]


def _round_up(spans: int) -> int:
    """The next power of two, as the size of a tile has to be one."""
    return 1 << (spans - 1).bit_length()


def _plain_gradients(ctx: Any, unpadded: Tensor | None, padded: Tensor | None) -> list[Tensor | None]:
    """The same gradients, differentiable: recomputed with the reference function."""
    features, weight, bias, _ = ctx.saved_tensors
    residual = None
    if ctx.needs_input_grad[3]:  # its gradient does not depend on its values
        residual = torch.zeros_like(features).requires_grad_()
    output = instance_norm(features, weight=weight, bias=bias, eps=ctx.eps, slope=ctx.slope, residual=residual)
    results, gradients = [], []
    if unpadded is not None:
        results.append(output)
        gradients.append(unpadded)
    if padded is not None:
        results.append(functional.pad(output, [ctx.pad] * 4, mode="reflect"))
        gradients.append(padded)
    inputs = (features, weight, bias, residual)
    needed_inputs: list[Any] = [
        tensor for tensor, needed in zip(inputs, ctx.needs_input_grad[:4], strict=True) if needed
    ]
    input_gradients = iter(torch.autograd.grad(results, needed_inputs, gradients, create_graph=True))
    return [next(input_gradients) if needed else None for needed in ctx.needs_input_grad[:4]]

"""Instance norm of channels_last features, fused with the activation, the residual sum and the reflection padding after it.

Forward and backward take two launches each: the first computes sums over spans of pixels, the second combines them and
processes the pixels. Only the input and its statistics are saved for the backward pass.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional

from gantoolkit.layers.kernels.reference import instance_norm
from gantoolkit.layers.kernels.triton_reflection_pad import check_pad
from gantoolkit.layers.kernels.triton_tiles import (
    cut,
    gather,
    in_channels_last,
    launch,
    locate,
    reflect,
    statistics_dtype,
)

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
        first_cut = cut(images, channels, height * width, max_spans=_MAX_SPANS)
        partials = torch.empty(images, first_cut.spans, 2, channels, dtype=wide, device=features.device)
        statistics = torch.empty(2, images, channels, dtype=wide, device=features.device)
        second_cut = cut(images, channels, (height + 2 * pad) * (width + 2 * pad))
        launch(
            *(_measure, first_cut, features, partials, height * width, channels, first_cut.spans, first_cut.span),
            STAGES=_STAGES,
        )
        launch(
            *(_normalize, second_cut, features, partials, weight, bias, residual, statistics, unpadded, padded),
            *(images, height, width, channels, first_cut.spans, first_cut.span, second_cut.spans, second_cut.span),
            EPS=eps,
            SLOPE=slope,
            PAD=pad,
            SPANS=triton.next_power_of_2(first_cut.spans),
        )
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
    first_cut = cut(images, channels, height * width, max_spans=_MAX_SPANS)
    partials = torch.empty(images, first_cut.spans, 2, channels, dtype=statistics.dtype, device=features.device)
    sizes = (images, height, width, channels, first_cut.spans, first_cut.span)
    launch(
        *(_measure_gradient, first_cut, features, statistics, weight, bias, unpadded, padded),
        *(None if padded is None else merged, partials, *sizes),
        SLOPE=ctx.slope,
        PAD=ctx.pad,
    )
    if for_features:
        second_cut = cut(images, channels, height * width)
        launch(
            *(_propagate, second_cut, features, statistics, weight, bias, merged, partials, result),
            *(*sizes, second_cut.spans, second_cut.span),
            SLOPE=ctx.slope,
            SPANS=triton.next_power_of_2(first_cut.spans),
        )
    return [
        result if for_features else None,
        partials[:, :, 1].sum(dim=(0, 1)).to(weight.dtype) if for_weight else None,
        partials[:, :, 0].sum(dim=(0, 1)).to(bias.dtype) if for_bias else None,
        merged if for_residual else None,
    ]


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


@triton.jit
def _measure(
    features, partials, PIXELS, C, spans, span, STAGES: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    """The mean and the sum of squared deviations of each channel of a span.

    Each slot of the tile updates its own mean (Welford 1962), then the slots are combined (Chan et al. 1979). This never
    subtracts large sums, whatever the mean.
    """
    WIDE: tl.constexpr = partials.dtype.element_ty
    image, part, columns = locate(C, spans, COLUMNS)
    features += image * PIXELS * C
    begin = part * span
    end = tl.minimum(begin + span, PIXELS)
    slots = tl.arange(0, ROWS)
    means = tl.zeros((ROWS, COLUMNS), WIDE)
    squares = tl.zeros((ROWS, COLUMNS), WIDE)
    count = tl.zeros((1, 1), WIDE)
    for start in tl.range(begin, end, ROWS, num_stages=STAGES):  # pyright: ignore[reportGeneralTypeIssues]
        rows = start + slots
        inside = (rows < end)[:, None] & (columns < C)[None, :]
        values = tl.load(features + rows[:, None] * C + columns[None, :], mask=inside, other=0).to(WIDE)
        count += 1
        delta = values - means
        new_means = means + delta * (1 / count)
        squares = tl.where(inside, squares + delta * (values - new_means), squares)
        means = tl.where(inside, new_means, means)
    counts = ((end - begin - slots + ROWS - 1) // ROWS).to(WIDE)[:, None]
    mean = tl.sum(means * counts, axis=0) / (end - begin)
    delta = means - mean[None, :]
    square = tl.sum(squares + counts * delta * delta, axis=0)
    offsets = partials + (image * spans + part) * 2 * C + columns
    tl.store(offsets, mean, mask=columns < C)
    tl.store(offsets + C, square, mask=columns < C)


@triton.jit
def _normalize(
    features,
    partials,
    weight,
    bias,
    residual,
    statistics,
    unpadded,
    padded,
    N,
    H,
    W,
    C,
    measured_spans,
    measured_span,
    spans,
    span,
    EPS: tl.constexpr,
    SLOPE: tl.constexpr,
    PAD: tl.constexpr,
    SPANS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Combine the statistics of the spans and write the results, pixel by pixel of the padded image."""
    WIDE: tl.constexpr = statistics.dtype.element_ty
    image, part, columns = locate(C, spans, COLUMNS)
    valid_columns = columns < C
    pixels = H * W

    span_indices = tl.arange(0, SPANS)
    valid = (span_indices < measured_spans)[:, None] & valid_columns[None, :]
    offsets = partials + image * measured_spans * 2 * C + span_indices[:, None] * 2 * C + columns[None, :]
    means = tl.load(offsets, mask=valid, other=0)
    squares = tl.load(offsets + C, mask=valid, other=0)
    counts = tl.maximum(tl.minimum(measured_span, pixels - span_indices * measured_span), 0).to(WIDE)[:, None]
    mean = tl.sum(means * counts, axis=0) / pixels
    delta = means - mean[None, :]
    deviation = tl.rsqrt(tl.sum(squares + counts * delta * delta, axis=0) / pixels + EPS)
    if part == 0:
        tl.store(statistics + image * C + columns, mean, mask=valid_columns)
        tl.store(statistics + (N + image) * C + columns, deviation, mask=valid_columns)

    features += image * pixels * C
    wide = W + 2 * PAD
    end = tl.minimum((part + 1) * span, (H + 2 * PAD) * wide)
    for start in range(part * span, end, ROWS):
        rows = start + tl.arange(0, ROWS)
        y = rows // wide - PAD
        x = rows % wide - PAD
        source = (reflect(y, H) * W + reflect(x, W))[:, None] * C + columns[None, :]
        inside = (rows < end)[:, None] & valid_columns[None, :]
        values = (tl.load(features + source, mask=inside, other=0).to(WIDE) - mean[None, :]) * deviation[None, :]
        values = _scale(values, weight, bias, columns, C, WIDE)
        if SLOPE is not None:
            values = tl.where(values < 0, values * SLOPE, values)  # propagates NaN
        if residual is not None:
            values += tl.load(residual + image * pixels * C + source, mask=inside, other=0).to(WIDE)
        if padded is not None:
            tl.store(
                padded + (image * (H + 2 * PAD) * wide + rows[:, None]) * C + columns[None, :], values, mask=inside
            )
        if unpadded is not None:
            own = inside & ((y >= 0) & (y < H) & (x >= 0) & (x < W))[:, None]
            tl.store(unpadded + image * pixels * C + source, values, mask=own)


@triton.jit
def _scale(normalized, weight, bias, columns, C, WIDE: tl.constexpr):
    """Multiply by `weight` and add `bias`; either may be None."""
    if weight is not None:
        normalized *= tl.load(weight + columns, mask=columns < C, other=0).to(WIDE)[None, :]
    if bias is not None:
        normalized += tl.load(bias + columns, mask=columns < C, other=0).to(WIDE)[None, :]
    return normalized


@triton.jit
def _measure_gradient(
    features,
    statistics,
    weight,
    bias,
    unpadded,
    padded,
    merged,
    partials,
    N,
    H,
    W,
    C,
    spans,
    span,
    SLOPE: tl.constexpr,
    PAD: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Sum the gradient before the activation, and its product with the normalized features, for each channel of a span.

    With padding, also write the gradient of the residual sum to `merged`.
    """
    WIDE: tl.constexpr = statistics.dtype.element_ty
    image, part, columns = locate(C, spans, COLUMNS)
    features += image * H * W * C
    if unpadded is not None:
        unpadded += image * H * W * C
    if padded is not None:
        padded += image * (H + 2 * PAD) * (W + 2 * PAD) * C
        merged += image * H * W * C
    mean, deviation = _load_statistics(statistics, image, columns, N, C)
    total = tl.zeros((ROWS, COLUMNS), WIDE)
    product = tl.zeros((ROWS, COLUMNS), WIDE)
    end = tl.minimum((part + 1) * span, H * W)
    for start in range(part * span, end, ROWS):
        gradient = gather(unpadded, padded, start, columns, end, H, W, C, PAD, ROWS, WIDE)
        rows = start + tl.arange(0, ROWS)
        inside = (rows < end)[:, None] & (columns < C)[None, :]
        offsets = rows[:, None] * C + columns[None, :]
        if padded is not None:
            tl.store(merged + offsets, gradient, mask=inside)
        normalized = (tl.load(features + offsets, mask=inside, other=0).to(WIDE) - mean[None, :]) * deviation[None, :]
        gradient = _unactivate(gradient, normalized, weight, bias, columns, C, SLOPE, WIDE)
        total += gradient
        product += gradient * normalized
    offsets = partials + (image * spans + part) * 2 * C + columns
    tl.store(offsets, tl.sum(total, axis=0), mask=columns < C)
    tl.store(offsets + C, tl.sum(product, axis=0), mask=columns < C)


@triton.jit
def _propagate(
    features,
    statistics,
    weight,
    bias,
    merged,
    partials,
    result,
    N,
    H,
    W,
    C,
    measured_spans,
    measured_span,
    spans,
    span,
    SLOPE: tl.constexpr,
    SPANS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Compute the gradient of the features from the sums of the spans; `result` may be `merged`."""
    WIDE: tl.constexpr = statistics.dtype.element_ty
    image, part, columns = locate(C, spans, COLUMNS)
    valid_columns = columns < C
    pixels = H * W

    span_indices = tl.arange(0, SPANS)
    valid = (span_indices < measured_spans)[:, None] & valid_columns[None, :]
    offsets = partials + image * measured_spans * 2 * C + span_indices[:, None] * 2 * C + columns[None, :]
    mean_gradient = tl.sum(tl.load(offsets, mask=valid, other=0), axis=0) / pixels
    mean_product = tl.sum(tl.load(offsets + C, mask=valid, other=0), axis=0) / pixels

    mean, deviation = _load_statistics(statistics, image, columns, N, C)
    scale = _scale(deviation[None, :], weight, None, columns, C, WIDE)
    end = tl.minimum((part + 1) * span, pixels)
    for start in range(part * span, end, ROWS):
        rows = start + tl.arange(0, ROWS)
        inside = (rows < end)[:, None] & valid_columns[None, :]
        positions = image * pixels * C + rows[:, None] * C + columns[None, :]
        gradient = tl.load(merged + positions, mask=inside, other=0).to(WIDE)
        normalized = (tl.load(features + positions, mask=inside, other=0).to(WIDE) - mean[None, :]) * deviation[None, :]
        gradient = _unactivate(gradient, normalized, weight, bias, columns, C, SLOPE, WIDE)
        tl.store(
            result + positions,
            scale * (gradient - mean_gradient[None, :] - normalized * mean_product[None, :]),
            mask=inside,
        )


@triton.jit
def _unactivate(gradient, normalized, weight, bias, columns, C, SLOPE: tl.constexpr, WIDE: tl.constexpr):
    """The gradient before the activation; the sign of the activation's input is recomputed."""
    if SLOPE is not None:
        gradient = tl.where(_scale(normalized, weight, bias, columns, C, WIDE) > 0, gradient, gradient * SLOPE)
    return gradient


@triton.jit
def _load_statistics(statistics, image, columns, N, C):
    """The mean and reciprocal standard deviation of each channel of the image."""
    mean = tl.load(statistics + image * C + columns, mask=columns < C, other=0)
    deviation = tl.load(statistics + (N + image) * C + columns, mask=columns < C, other=0)
    return mean, deviation

"""Instance norm of channels_last features, fused with the activation, the residual sum and the reflection padding after it.

Forward and backward are two launches each: the first takes sums over spans of pixels, the second combines them and goes over
the pixels once more. Between forward and backward only the input and its statistics are kept.
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

_MOST_SPANS = 64
"""Every program of the second launch reads the sums of all spans of its channels, 16 kB at most: as much as a float32 tile."""
_STAGES = 3
"""Tiles that are on their way from memory while one is summed."""


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

    May be differentiated any number of times; all but the first time through the plain function. `gantoolkit.layers.kernels.can_fuse`
    says whether it takes `features`.

    Raises:
        ValueError: When `pad` is negative or not smaller than H and W, or `weight`, `bias` or `residual` do not fit
            `features`.
    """
    tensors = _prepare(features, weight, bias, residual, pad)
    kept, padded = _InstanceNorm.apply(*tensors, eps, slope, pad, pad == 0)
    return padded if pad else kept


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
    """The result of `fused_instance_norm` without padding, and with it.

    A residual block takes both: one for its identity path, one for its first convolution.

    Raises:
        ValueError: As `fused_instance_norm`, and when `pad` is 0.
    """
    if pad == 0:
        raise ValueError("pad is 0, so there is one result, not two; use fused_instance_norm")
    tensors = _prepare(features, weight, bias, residual, pad)
    return _InstanceNorm.apply(*tensors, eps, slope, pad, True)


def _prepare(
    features: Tensor, weight: Tensor | None, bias: Tensor | None, residual: Tensor | None, pad: int
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """The tensors as they have to lie in memory, refused if they do not fit each other."""
    check_pad(features, pad)
    for name, vector in (("weight", weight), ("bias", bias)):
        if vector is not None and vector.shape != features.shape[1:2]:
            raise ValueError(
                f"{name} has shape {tuple(vector.shape)}, for these features it would be ({features.shape[1]},)"
            )
    if residual is not None and (residual.shape != features.shape or residual.dtype != features.dtype):
        raise ValueError(
            f"residual is {residual.dtype} {tuple(residual.shape)}, it has to be like the features, {features.dtype} "
            f"{tuple(features.shape)}"
        )
    return (
        in_channels_last(features),
        None if weight is None else weight.contiguous(),
        None if bias is None else bias.contiguous(),
        None if residual is None else in_channels_last(residual),
    )


class _InstanceNorm(torch.autograd.Function):
    """Gives the result without padding, if it is to be kept or there is no padding, and the padded one, if there is."""

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
        kept = torch.empty_like(features, memory_format=torch.channels_last) if keep else None
        padded = None
        if pad:
            shape = (images, channels, height + 2 * pad, width + 2 * pad)
            padded = torch.empty(shape, dtype=features.dtype, device=features.device, memory_format=torch.channels_last)
        tiles = cut(images, channels, height * width, most_spans=_MOST_SPANS)
        partials = torch.empty(images, tiles.spans, 2, channels, dtype=wide, device=features.device)
        statistics = torch.empty(2, images, channels, dtype=wide, device=features.device)
        walk = cut(images, channels, (height + 2 * pad) * (width + 2 * pad))
        launch(
            *(_measure, tiles, features, partials, height * width, channels, tiles.spans, tiles.span),
            STAGES=_STAGES,
        )
        launch(
            *(_normalize, walk, features, partials, weight, bias, residual, statistics, kept, padded),
            *(images, height, width, channels, tiles.spans, tiles.span, walk.spans, walk.span),
            EPS=eps,
            SLOPE=slope,
            PAD=pad,
            SPANS=triton.next_power_of_2(tiles.spans),
        )
        ctx.save_for_backward(features, weight, bias, statistics)
        ctx.eps, ctx.slope, ctx.pad = eps, slope, pad
        ctx.set_materialize_grads(False)
        return kept, padded

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Tensor | None, ...]:
        kept, padded = grad_outputs
        rest = (None,) * 4  # eps, slope, pad and keep are numbers
        if kept is None and padded is None:
            return (*(None,) * 4, *rest)
        if torch.is_grad_enabled():  # create_graph: the gradient will be differentiated, which kernels are not made for
            return (*_plain_gradients(ctx, kept, padded), *rest)
        return (*_fused_gradients(ctx, kept, padded), *rest)


def _fused_gradients(ctx: Any, kept: Tensor | None, padded: Tensor | None) -> list[Tensor | None]:
    """Gradients with respect to features, weight, bias and residual, from those of both results."""
    features, weight, bias, statistics = ctx.saved_tensors
    images, channels, height, width = features.shape
    for_features, for_weight, for_bias, for_residual = ctx.needs_input_grad[:4]
    kept = None if kept is None else in_channels_last(kept)
    padded = None if padded is None else in_channels_last(padded)
    result = torch.empty_like(features, memory_format=torch.channels_last)
    # The gradient of the sum is also the residual's. Where there is no residual it lies in `result` until it is overwritten.
    merged = kept if padded is None else torch.empty_like(result) if for_residual else result
    tiles = cut(images, channels, height * width, most_spans=_MOST_SPANS)
    partials = torch.empty(images, tiles.spans, 2, channels, dtype=statistics.dtype, device=features.device)
    sizes = (images, height, width, channels, tiles.spans, tiles.span)
    launch(
        *(_measure_gradient, tiles, features, statistics, weight, bias, kept, padded),
        *(None if padded is None else merged, partials, *sizes),
        SLOPE=ctx.slope,
        PAD=ctx.pad,
    )
    if for_features:
        walk = cut(images, channels, height * width)
        launch(
            *(_propagate, walk, features, statistics, weight, bias, merged, partials, result),
            *(*sizes, walk.spans, walk.span),
            SLOPE=ctx.slope,
            SPANS=triton.next_power_of_2(tiles.spans),
        )
    return [
        result if for_features else None,
        partials[:, :, 1].sum(dim=(0, 1)).to(weight.dtype) if for_weight else None,
        partials[:, :, 0].sum(dim=(0, 1)).to(bias.dtype) if for_bias else None,
        merged if for_residual else None,
    ]


def _plain_gradients(ctx: Any, kept: Tensor | None, padded: Tensor | None) -> list[Tensor | None]:
    """The same gradients as functions that can be differentiated: those of the plain function, computed anew."""
    features, weight, bias, _ = ctx.saved_tensors
    residual = None
    if ctx.needs_input_grad[3]:  # its gradient depends on its shape alone
        residual = torch.zeros_like(features).requires_grad_()
    made = instance_norm(features, weight=weight, bias=bias, eps=ctx.eps, slope=ctx.slope, residual=residual)
    results, gradients = [], []
    if kept is not None:
        results.append(made)
        gradients.append(kept)
    if padded is not None:
        results.append(functional.pad(made, [ctx.pad] * 4, mode="reflect"))
        gradients.append(padded)
    inputs = (features, weight, bias, residual)
    wanted: list[Any] = [tensor for tensor, needed in zip(inputs, ctx.needs_input_grad[:4], strict=True) if needed]
    found = iter(torch.autograd.grad(results, wanted, gradients, create_graph=True))
    return [next(found) if needed else None for needed in ctx.needs_input_grad[:4]]


@triton.jit
def _measure(
    features, partials, PIXELS, C, spans, span, STAGES: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    """Mean and sum of squared deviations from it, for each channel of a span.

    Each slot of the tile follows its own mean (Welford 1962), then the slots are combined (Chan et al. 1979): no difference of
    large sums, whatever the mean.
    """
    WIDE: tl.constexpr = partials.dtype.element_ty
    image, part, columns = locate(C, spans, COLUMNS)
    features += image * PIXELS * C
    begin = part * span
    end = tl.minimum(begin + span, PIXELS)
    slots = tl.arange(0, ROWS)
    means = tl.zeros((ROWS, COLUMNS), WIDE)
    squares = tl.zeros((ROWS, COLUMNS), WIDE)
    seen = tl.zeros((1, 1), WIDE)
    for start in tl.range(begin, end, ROWS, num_stages=STAGES):  # pyright: ignore[reportGeneralTypeIssues]
        rows = start + slots
        inside = (rows < end)[:, None] & (columns < C)[None, :]
        values = tl.load(features + rows[:, None] * C + columns[None, :], mask=inside, other=0).to(WIDE)
        seen += 1
        away = values - means
        moved = means + away * (1 / seen)
        squares = tl.where(inside, squares + away * (values - moved), squares)
        means = tl.where(inside, moved, means)
    counts = ((end - begin - slots + ROWS - 1) // ROWS).to(WIDE)[:, None]
    mean = tl.sum(means * counts, axis=0) / (end - begin)
    away = means - mean[None, :]
    square = tl.sum(squares + counts * away * away, axis=0)
    at = partials + (image * spans + part) * 2 * C + columns
    tl.store(at, mean, mask=columns < C)
    tl.store(at + C, square, mask=columns < C)


@triton.jit
def _normalize(
    features,
    partials,
    weight,
    bias,
    residual,
    statistics,
    kept,
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
    """Combine the spans' statistics, and walk through the padded image."""
    WIDE: tl.constexpr = statistics.dtype.element_ty
    image, part, columns = locate(C, spans, COLUMNS)
    there = columns < C
    pixels = H * W

    places = tl.arange(0, SPANS)
    known = (places < measured_spans)[:, None] & there[None, :]
    at = partials + image * measured_spans * 2 * C + places[:, None] * 2 * C + columns[None, :]
    means = tl.load(at, mask=known, other=0)
    squares = tl.load(at + C, mask=known, other=0)
    counts = tl.maximum(tl.minimum(measured_span, pixels - places * measured_span), 0).to(WIDE)[:, None]
    mean = tl.sum(means * counts, axis=0) / pixels
    away = means - mean[None, :]
    deviation = tl.rsqrt(tl.sum(squares + counts * away * away, axis=0) / pixels + EPS)
    if part == 0:
        tl.store(statistics + image * C + columns, mean, mask=there)
        tl.store(statistics + (N + image) * C + columns, deviation, mask=there)

    features += image * pixels * C
    wide = W + 2 * PAD
    end = tl.minimum((part + 1) * span, (H + 2 * PAD) * wide)
    for start in range(part * span, end, ROWS):
        rows = start + tl.arange(0, ROWS)
        y = rows // wide - PAD
        x = rows % wide - PAD
        source = (reflect(y, H) * W + reflect(x, W))[:, None] * C + columns[None, :]
        inside = (rows < end)[:, None] & there[None, :]
        made = (tl.load(features + source, mask=inside, other=0).to(WIDE) - mean[None, :]) * deviation[None, :]
        made = _scale(made, weight, bias, columns, C, WIDE)
        if SLOPE is not None:
            made = tl.where(made < 0, made * SLOPE, made)  # which lets NaN through
        if residual is not None:
            made += tl.load(residual + image * pixels * C + source, mask=inside, other=0).to(WIDE)
        if padded is not None:
            tl.store(padded + (image * (H + 2 * PAD) * wide + rows[:, None]) * C + columns[None, :], made, mask=inside)
        if kept is not None:
            own = inside & ((y >= 0) & (y < H) & (x >= 0) & (x < W))[:, None]
            tl.store(kept + image * pixels * C + source, made, mask=own)


@triton.jit
def _scale(normalized, weight, bias, columns, C, WIDE: tl.constexpr):
    """Channels times `weight` plus `bias`, where there are any."""
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
    kept,
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
    """For each channel of a span: the sum of the gradient in front of the activation, and that times the normalized features.

    Where there is padding, also writes the gradient of the sum with the residual, `merged`.
    """
    WIDE: tl.constexpr = statistics.dtype.element_ty
    image, part, columns = locate(C, spans, COLUMNS)
    features += image * H * W * C
    if kept is not None:
        kept += image * H * W * C
    if padded is not None:
        padded += image * (H + 2 * PAD) * (W + 2 * PAD) * C
        merged += image * H * W * C
    mean, deviation = _load_statistics(statistics, image, columns, N, C)
    total = tl.zeros((ROWS, COLUMNS), WIDE)
    product = tl.zeros((ROWS, COLUMNS), WIDE)
    end = tl.minimum((part + 1) * span, H * W)
    for start in range(part * span, end, ROWS):
        gradient = gather(kept, padded, start, columns, end, H, W, C, PAD, ROWS, WIDE)
        rows = start + tl.arange(0, ROWS)
        inside = (rows < end)[:, None] & (columns < C)[None, :]
        at = rows[:, None] * C + columns[None, :]
        if padded is not None:
            tl.store(merged + at, gradient, mask=inside)
        normalized = (tl.load(features + at, mask=inside, other=0).to(WIDE) - mean[None, :]) * deviation[None, :]
        gradient = _unactivate(gradient, normalized, weight, bias, columns, C, SLOPE, WIDE)
        total += gradient
        product += gradient * normalized
    at = partials + (image * spans + part) * 2 * C + columns
    tl.store(at, tl.sum(total, axis=0), mask=columns < C)
    tl.store(at + C, tl.sum(product, axis=0), mask=columns < C)


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
    """The gradient with respect to the features, from the spans' sums; `result` may be `merged`."""
    WIDE: tl.constexpr = statistics.dtype.element_ty
    image, part, columns = locate(C, spans, COLUMNS)
    there = columns < C
    pixels = H * W

    places = tl.arange(0, SPANS)
    known = (places < measured_spans)[:, None] & there[None, :]
    at = partials + image * measured_spans * 2 * C + places[:, None] * 2 * C + columns[None, :]
    average = tl.sum(tl.load(at, mask=known, other=0), axis=0) / pixels
    share = tl.sum(tl.load(at + C, mask=known, other=0), axis=0) / pixels

    mean, deviation = _load_statistics(statistics, image, columns, N, C)
    scale = _scale(deviation[None, :], weight, None, columns, C, WIDE)
    end = tl.minimum((part + 1) * span, pixels)
    for start in range(part * span, end, ROWS):
        rows = start + tl.arange(0, ROWS)
        inside = (rows < end)[:, None] & there[None, :]
        place = image * pixels * C + rows[:, None] * C + columns[None, :]
        gradient = tl.load(merged + place, mask=inside, other=0).to(WIDE)
        normalized = (tl.load(features + place, mask=inside, other=0).to(WIDE) - mean[None, :]) * deviation[None, :]
        gradient = _unactivate(gradient, normalized, weight, bias, columns, C, SLOPE, WIDE)
        tl.store(result + place, scale * (gradient - average[None, :] - normalized * share[None, :]), mask=inside)


@triton.jit
def _unactivate(gradient, normalized, weight, bias, columns, C, SLOPE: tl.constexpr, WIDE: tl.constexpr):
    """The gradient in front of the activation, whose sign is found anew."""
    if SLOPE is not None:
        gradient = tl.where(_scale(normalized, weight, bias, columns, C, WIDE) > 0, gradient, gradient * SLOPE)
    return gradient


@triton.jit
def _load_statistics(statistics, image, columns, N, C):
    """Mean and reciprocal standard deviation of the image's channels."""
    mean = tl.load(statistics + image * C + columns, mask=columns < C, other=0)
    deviation = tl.load(statistics + (N + image) * C + columns, mask=columns < C, other=0)
    return mean, deviation

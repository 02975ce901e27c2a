"""The device code of `gantoolkit.layers.kernels.triton_instance_norm`.

Large images take two launches: `measure` and `normalize`, backward `measure_gradient` and `propagate`. Small ones take one:
`measure_and_normalize`, backward `measure_gradient_and_propagate`. The formulas are the same, the order of summation is not.
"""

import triton
import triton.language as tl

from gantoolkit.layers.kernels.triton_tiles import gather, locate, reflect

__all__ = [
    "measure",
    "measure_and_normalize",
    "measure_gradient",
    "measure_gradient_and_propagate",
    "normalize",
    "propagate",
]


@triton.jit(do_not_specialize=["PIXELS", "spans", "span"])
def measure(
    features, partials, PIXELS, C, spans, span, STAGES: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    """Write the mean and the sum of squared deviations of each channel of a span to `partials`."""
    image, part, columns = locate(C, spans, COLUMNS)
    end = tl.minimum((part + 1) * span, PIXELS)
    mean, square = _measure_span(
        features + image * PIXELS * C, part * span, end, columns, C, partials.dtype.element_ty, STAGES, ROWS, COLUMNS
    )
    offsets = partials + (image * spans + part) * 2 * C + columns
    tl.store(offsets, mean, mask=columns < C)
    tl.store(offsets + C, square, mask=columns < C)


@triton.jit(do_not_specialize=["N", "H", "W", "measured_spans", "measured_span", "spans", "span"])
def normalize(
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
    """Combine the statistics of the spans and write the results."""
    WIDE: tl.constexpr = statistics.dtype.element_ty
    image, part, columns = locate(C, spans, COLUMNS)
    pixels = H * W
    span_indices = tl.arange(0, SPANS)
    valid = (span_indices < measured_spans)[:, None] & (columns < C)[None, :]
    offsets = partials + image * measured_spans * 2 * C + span_indices[:, None] * 2 * C + columns[None, :]
    means = tl.load(offsets, mask=valid, other=0)
    squares = tl.load(offsets + C, mask=valid, other=0)
    counts = tl.maximum(tl.minimum(measured_span, pixels - span_indices * measured_span), 0).to(WIDE)[:, None]
    mean = tl.sum(means * counts, axis=0) / pixels
    delta = means - mean[None, :]
    deviation = tl.rsqrt(tl.sum(squares + counts * delta * delta, axis=0) / pixels + EPS)
    if part == 0:
        _store_statistics(statistics, mean, deviation, image, columns, N, C)
    end = tl.minimum((part + 1) * span, (H + 2 * PAD) * (W + 2 * PAD))
    _write_results(
        *(features, weight, bias, residual, unpadded, padded, image, part * span, end, columns, mean, deviation),
        *(H, W, C, WIDE, SLOPE, PAD, ROWS),
    )


@triton.jit(do_not_specialize=["N", "H", "W"])
def measure_and_normalize(
    features,
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
    EPS: tl.constexpr,
    SLOPE: tl.constexpr,
    PAD: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Compute the statistics of an image and write the results. The features are read twice, the second time from a cache."""
    WIDE: tl.constexpr = statistics.dtype.element_ty
    image, _, columns = locate(C, 1, COLUMNS)
    pixels = H * W
    # One stage: asynchronous copies of a pipeline bypass the cache that the second pass reads.
    own = features + image * pixels * C
    mean, square = _measure_span(own, 0, pixels, columns, C, WIDE, tl.constexpr(1), ROWS, COLUMNS)
    deviation = tl.rsqrt(square / pixels + EPS)
    _store_statistics(statistics, mean, deviation, image, columns, N, C)
    _write_results(
        *(features, weight, bias, residual, unpadded, padded, image, 0, (H + 2 * PAD) * (W + 2 * PAD), columns),
        *(mean, deviation, H, W, C, WIDE, SLOPE, PAD, ROWS),
    )


@triton.jit(do_not_specialize=["N", "H", "W", "spans", "span"])
def measure_gradient(
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
    """Write the sums of `_measure_gradient_span` to `partials`; with padding, the gradient of the residual sum to `merged`."""
    image, part, columns = locate(C, spans, COLUMNS)
    mean, deviation = _load_statistics(statistics, image, columns, N, C)
    end = tl.minimum((part + 1) * span, H * W)
    total, product = _measure_gradient_span(
        *(features, weight, bias, unpadded, padded, merged, image, part * span, end, columns, mean, deviation),
        *(H, W, C, statistics.dtype.element_ty, SLOPE, PAD, ROWS, COLUMNS),
    )
    offsets = partials + (image * spans + part) * 2 * C + columns
    tl.store(offsets, total, mask=columns < C)
    tl.store(offsets + C, product, mask=columns < C)


@triton.jit(do_not_specialize=["N", "H", "W", "measured_spans", "measured_span", "spans", "span"])
def propagate(
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
    span_indices = tl.arange(0, SPANS)
    valid = (span_indices < measured_spans)[:, None] & (columns < C)[None, :]
    offsets = partials + image * measured_spans * 2 * C + span_indices[:, None] * 2 * C + columns[None, :]
    total = tl.sum(tl.load(offsets, mask=valid, other=0), axis=0)
    product = tl.sum(tl.load(offsets + C, mask=valid, other=0), axis=0)
    mean, deviation = _load_statistics(statistics, image, columns, N, C)
    end = tl.minimum((part + 1) * span, H * W)
    _write_gradient(
        *(features, weight, bias, merged, result, image, part * span, end, columns, mean, deviation, total, product),
        *(H, W, C, WIDE, SLOPE, ROWS),
    )


@triton.jit(do_not_specialize=["N", "H", "W"])
def measure_gradient_and_propagate(
    features,
    statistics,
    weight,
    bias,
    unpadded,
    padded,
    merged,
    partials,
    result,
    N,
    H,
    W,
    C,
    SLOPE: tl.constexpr,
    PAD: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Both launches of the backward pass for one image. `result` may be `merged`, or None if it is not needed."""
    WIDE: tl.constexpr = statistics.dtype.element_ty
    image, _, columns = locate(C, 1, COLUMNS)
    mean, deviation = _load_statistics(statistics, image, columns, N, C)
    total, product = _measure_gradient_span(
        *(features, weight, bias, unpadded, padded, merged, image, 0, H * W, columns, mean, deviation),
        *(H, W, C, WIDE, SLOPE, PAD, ROWS, COLUMNS),
    )
    if partials is not None:
        offsets = partials + image * 2 * C + columns
        tl.store(offsets, total, mask=columns < C)
        tl.store(offsets + C, product, mask=columns < C)
    if result is not None:
        gradient = unpadded
        if padded is not None:
            gradient = merged
            tl.debug_barrier()  # other threads wrote it
        _write_gradient(
            *(features, weight, bias, gradient, result, image, 0, H * W, columns, mean, deviation, total, product),
            *(H, W, C, WIDE, SLOPE, ROWS),
        )


@triton.jit
def _measure_span(
    features,
    begin,
    end,
    columns,
    C,
    WIDE: tl.constexpr,
    STAGES: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """The mean and the sum of squared deviations of each channel of a span.

    Each slot of the tile updates its own mean (Welford 1962), then the slots are combined (Chan et al. 1979). This never
    subtracts large sums, whatever the mean.
    """
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
    return mean, tl.sum(squares + counts * delta * delta, axis=0)


@triton.jit
def _write_results(
    features,
    weight,
    bias,
    residual,
    unpadded,
    padded,
    image,
    begin,
    end,
    columns,
    mean,
    deviation,
    H,
    W,
    C,
    WIDE: tl.constexpr,
    SLOPE: tl.constexpr,
    PAD: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Write the results of the pixels `begin` up to `end` of the padded image."""
    pixels = H * W
    wide = W + 2 * PAD
    features += image * pixels * C
    for start in range(begin, end, ROWS):
        rows = start + tl.arange(0, ROWS)
        y = rows // wide - PAD
        x = rows % wide - PAD
        source = (reflect(y, H) * W + reflect(x, W))[:, None] * C + columns[None, :]
        inside = (rows < end)[:, None] & (columns < C)[None, :]
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
def _measure_gradient_span(
    features,
    weight,
    bias,
    unpadded,
    padded,
    merged,
    image,
    begin,
    end,
    columns,
    mean,
    deviation,
    H,
    W,
    C,
    WIDE: tl.constexpr,
    SLOPE: tl.constexpr,
    PAD: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Sum the gradient before the activation, and its product with the normalized features, for each channel of a span.

    With padding, also write the gradient of the residual sum to `merged`.
    """
    features += image * H * W * C
    if unpadded is not None:
        unpadded += image * H * W * C
    if padded is not None:
        padded += image * (H + 2 * PAD) * (W + 2 * PAD) * C
        merged += image * H * W * C
    total = tl.zeros((ROWS, COLUMNS), WIDE)
    product = tl.zeros((ROWS, COLUMNS), WIDE)
    for start in range(begin, end, ROWS):
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
    return tl.sum(total, axis=0), tl.sum(product, axis=0)


@triton.jit
def _write_gradient(
    features,
    weight,
    bias,
    merged,
    result,
    image,
    begin,
    end,
    columns,
    mean,
    deviation,
    total,
    product,
    H,
    W,
    C,
    WIDE: tl.constexpr,
    SLOPE: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Write the gradient of the features of the pixels `begin` up to `end`, from the sums of all pixels of the image."""
    pixels = H * W
    mean_gradient = total / pixels
    mean_product = product / pixels
    scale = _scale(deviation[None, :], weight, None, columns, C, WIDE)
    for start in range(begin, end, ROWS):
        rows = start + tl.arange(0, ROWS)
        inside = (rows < end)[:, None] & (columns < C)[None, :]
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
def _scale(normalized, weight, bias, columns, C, WIDE: tl.constexpr):
    """Multiply by `weight` and add `bias`; either may be None."""
    if weight is not None:
        normalized *= tl.load(weight + columns, mask=columns < C, other=0).to(WIDE)[None, :]
    if bias is not None:
        normalized += tl.load(bias + columns, mask=columns < C, other=0).to(WIDE)[None, :]
    return normalized


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


@triton.jit
def _store_statistics(statistics, mean, deviation, image, columns, N, C):
    tl.store(statistics + image * C + columns, mean, mask=columns < C)
    tl.store(statistics + (N + image) * C + columns, deviation, mask=columns < C)

"""Reflection padding of channels_last features with a deterministic backward pass."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from gantoolkit.layers.kernels.triton_tiles import (
    cut,
    gather,
    in_channels_last,
    launch,
    locate,
    reflect,
    statistics_dtype,
)

__all__ = ["fused_reflection_pad"]


def fused_reflection_pad(features: Tensor, pad: int) -> Tensor:
    """Pad (N, C, H, W) with its mirror image to (N, C, H + 2·pad, W + 2·pad), in channels_last.

    Differentiable any number of times. `gantoolkit.layers.kernels.can_fuse` returns whether `features` are supported.

    Raises:
        ValueError: If `pad` is negative, or not smaller than H and W.
    """
    check_pad(features, pad)
    return _Pad.apply(features, pad)


def check_pad(features: Tensor, pad: int) -> None:
    """Raise ValueError if `pad` is negative, or not smaller than H and W."""
    if not 0 <= pad < min(features.shape[2:]):
        height, width = features.shape[2:]
        raise ValueError(
            f"pad is {pad}; for features of {height}×{width} pixels it must be 0 to {min(height, width) - 1}"
        )


class _Pad(torch.autograd.Function):
    """Padding. Its backward pass is `_Fold`."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, pad: int) -> Tensor:
        ctx.pad = pad
        features = in_channels_last(features)
        images, channels, height, width = features.shape
        shape = (images, channels, height + 2 * pad, width + 2 * pad)
        padded = torch.empty(shape, dtype=features.dtype, device=features.device, memory_format=torch.channels_last)
        tiles = cut(images, channels, shape[2] * shape[3])
        launch(_pad, tiles, (features, padded), (height, width, channels, tiles.spans, tiles.span), PAD=pad)
        return padded

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Tensor, None]:
        return _Fold.apply(*grad_outputs, ctx.pad), None


class _Fold(torch.autograd.Function):
    """Add the border to the pixels that it mirrors. Its backward pass is `_Pad`, since both are linear."""

    @staticmethod
    def forward(ctx: Any, padded: Tensor, pad: int) -> Tensor:
        ctx.pad = pad
        padded = in_channels_last(padded)
        images, channels, height, width = padded.shape
        shape = (images, channels, height - 2 * pad, width - 2 * pad)
        folded = torch.empty(shape, dtype=padded.dtype, device=padded.device, memory_format=torch.channels_last)
        tiles = cut(images, channels, shape[2] * shape[3], tiles=4)
        wide = tl.float64 if statistics_dtype(padded) == torch.float64 else tl.float32
        sizes = (*shape[2:], channels, tiles.spans, tiles.span)
        launch(_fold, tiles, (padded, folded), sizes, WIDE=wide, PAD=pad)
        return folded

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Tensor, None]:
        return _Pad.apply(*grad_outputs, ctx.pad), None


@triton.jit(do_not_specialize=["H", "W", "spans", "span"])
def _pad(features, padded, H, W, C, spans, span, PAD: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    image, part, columns = locate(C, spans, COLUMNS)
    wide = W + 2 * PAD
    pixels = (H + 2 * PAD) * wide
    features += image * H * W * C
    padded += image * pixels * C
    end = tl.minimum((part + 1) * span, pixels)
    for start in range(part * span, end, ROWS):
        rows = start + tl.arange(0, ROWS)
        inside = (rows < end)[:, None] & (columns < C)[None, :]
        source = reflect(rows // wide - PAD, H) * W + reflect(rows % wide - PAD, W)
        values = tl.load(features + source[:, None] * C + columns[None, :], mask=inside)
        tl.store(padded + rows[:, None] * C + columns[None, :], values, mask=inside)


@triton.jit(do_not_specialize=["H", "W", "spans", "span"])
def _fold(
    padded,
    folded,
    H,
    W,
    C,
    spans,
    span,
    WIDE: tl.constexpr,
    PAD: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    image, part, columns = locate(C, spans, COLUMNS)
    padded += image * (H + 2 * PAD) * (W + 2 * PAD) * C
    folded += image * H * W * C
    end = tl.minimum((part + 1) * span, H * W)
    for start in range(part * span, end, ROWS):
        values = gather(None, padded, start, columns, end, H, W, C, PAD, ROWS, WIDE)
        rows = start + tl.arange(0, ROWS)
        inside = (rows < end)[:, None] & (columns < C)[None, :]
        tl.store(folded + rows[:, None] * C + columns[None, :], values, mask=inside)

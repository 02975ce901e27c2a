"""Tiling of channels_last features (N, C, H, W) for the kernels, and operations that they share.

An image is H·W rows of C numbers. A program processes one span of pixels of one block of channels of one image, tile by tile.
The tiling depends on shapes only, so the order of summation is always the same.
"""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

_WARPS = 8
ELEMENTS = 4096
"""Elements of a tile: 16 per thread of eight warps. With twice as many, padded gradients spill registers."""
CHANNELS = 32
"""Maximum number of channels of a tile: two memory sectors for a two-byte dtype."""
PROGRAMS = 512
"""Target number of programs per launch: about four for each of the 132 multiprocessors of an H100."""


class Cut(NamedTuple):
    """The tiling of a launch: `spans` of `span` pixels per image (the last may be shorter), in tiles of `rows` × `columns`."""

    rows: int
    columns: int
    spans: int
    span: int
    programs: int


def cut(images: int, channels: int, pixels: int, *, max_spans: int | None = None) -> Cut:
    """Divide `images` of `pixels` × `channels` into about PROGRAMS programs, with at most `max_spans` spans per image."""
    columns = min(CHANNELS, triton.next_power_of_2(channels))
    rows = max(1, ELEMENTS // columns)
    blocks = triton.cdiv(channels, columns)
    tiles = triton.cdiv(pixels, rows)
    target_spans = min(triton.cdiv(PROGRAMS, images * blocks), tiles, max_spans or tiles)
    span = triton.cdiv(tiles, target_spans) * rows
    spans = triton.cdiv(pixels, span)
    return Cut(rows, columns, spans, span, images * spans * blocks)


def launch(kernel: Any, tiles: Cut, features: Tensor, *arguments: Tensor | int | None, **settings: Any) -> None:
    """Launch `kernel` on the device of `features`, its first argument; `settings` are compile-time constants."""
    with torch.cuda.device_of(features):
        kernel[(tiles.programs,)](
            features,
            *arguments,
            **settings,
            ROWS=tiles.rows,
            COLUMNS=tiles.columns,
            num_warps=_WARPS,
            enable_fp_fusion=True,  # explicit, since Triton 3.9 warns that the default will change
        )


def statistics_dtype(features: Tensor) -> torch.dtype:
    """The dtype of sums and statistics: float64 for float64 features, else float32."""
    return torch.promote_types(features.dtype, torch.float32)


def in_channels_last(tensor: Tensor) -> Tensor:
    """Return the tensor in channels_last, copied only if necessary."""
    return tensor.contiguous(memory_format=torch.channels_last)


@triton.jit
def locate(C, spans, COLUMNS: tl.constexpr):
    """The image, span and channels of this program. Neighboring programs share pixels, and so cache lines."""
    program = tl.program_id(0)
    blocks = tl.cdiv(C, COLUMNS)
    columns = program % blocks * COLUMNS + tl.arange(0, COLUMNS)
    span = program // blocks % spans
    image = (program // blocks // spans).to(tl.int64)
    return image, span, columns


@triton.jit
def reflect(index, size):
    """Reflect an index that is up to size − 1 out of bounds into [0, size)."""
    index = tl.abs(index)
    return size - 1 - tl.abs(size - 1 - index)


@triton.jit
def gather(unpadded, padded, start, columns, end, H, W, C, PAD: tl.constexpr, ROWS: tl.constexpr, WIDE: tl.constexpr):
    """The gradient for a tile of pixels from `start` up to `end`, summed over the image and the mirror images in its padding.

    Each pixel sums up to 9 positions, always in the same order, so no atomic operation is needed. `unpadded`, the gradient of
    the image, or `padded`, the gradient of the padded image, may be None.
    """
    rows = start + tl.arange(0, ROWS)
    inside = (rows < end)[:, None] & (columns < C)[None, :]
    total = tl.zeros(inside.shape, WIDE)
    if unpadded is not None:
        total += tl.load(unpadded + rows[:, None] * C + columns[None, :], mask=inside, other=0).to(WIDE)
    if padded is not None:
        y = (rows // W)[:, None]
        x = (rows % W)[:, None]
        total += _gather_line(padded, y + PAD, x, columns, inside, W, C, PAD, WIDE)
        # Otherwise no line of the tile has a mirror image.
        if (start // W <= PAD) | ((start + ROWS - 1) // W >= H - 1 - PAD):
            above = inside & (y >= 1) & (y <= PAD)
            total += _gather_line(padded, PAD - y, x, columns, above, W, C, PAD, WIDE)
            below = inside & (y >= H - 1 - PAD) & (y <= H - 2)
            total += _gather_line(padded, 2 * (H - 1) - y + PAD, x, columns, below, W, C, PAD, WIDE)
    return total


@triton.jit
def _gather_line(padded, line, x, columns, inside, W, C, PAD: tl.constexpr, WIDE: tl.constexpr):
    """The sum of pixels `x` of a padded line and their mirror images in that line."""
    offsets = padded + line * (W + 2 * PAD) * C + columns[None, :]
    total = tl.load(offsets + (x + PAD) * C, mask=inside, other=0).to(WIDE)
    left = inside & (x >= 1) & (x <= PAD)
    total += tl.load(offsets + (PAD - x) * C, mask=left, other=0).to(WIDE)
    right = inside & (x >= W - 1 - PAD) & (x <= W - 2)
    total += tl.load(offsets + (2 * (W - 1) - x + PAD) * C, mask=right, other=0).to(WIDE)
    return total

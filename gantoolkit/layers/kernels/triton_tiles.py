"""How the kernels cut channels_last features (N, C, H, W) into tiles of pixels × channels, and the steps that they share.

An image is H·W rows of C numbers. A program takes one image, one span of its pixels, and one block of its channels, and walks
through the span tile by tile. How an image is cut depends on shapes alone, so sums are taken in the same order each time.
"""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

_WARPS = 8
ELEMENTS = 4096
"""Numbers in a tile: 16 for each thread of eight warps. With twice as many, the sums of a padded gradient spill registers."""
CHANNELS = 32
"""Channels in a tile, at most: in a type of two bytes, two sectors of memory."""
PROGRAMS = 512
"""Programs wanted in a launch: about four for each of the 132 multiprocessors of an H100."""


class Cut(NamedTuple):
    """A launch over images: `spans` of `span` pixels each (the last may be shorter), in tiles of `rows` × `columns`."""

    rows: int
    columns: int
    spans: int
    span: int
    programs: int


def cut(images: int, channels: int, pixels: int, *, most_spans: int | None = None) -> Cut:
    """Cut `images` of `pixels` × `channels` into about PROGRAMS programs, with at most `most_spans` spans for an image."""
    columns = min(CHANNELS, triton.next_power_of_2(channels))
    rows = max(1, ELEMENTS // columns)
    blocks = triton.cdiv(channels, columns)
    tiles = triton.cdiv(pixels, rows)
    wanted = min(triton.cdiv(PROGRAMS, images * blocks), tiles, most_spans or tiles)
    span = triton.cdiv(tiles, wanted) * rows
    spans = triton.cdiv(pixels, span)
    return Cut(rows, columns, spans, span, images * spans * blocks)


def launch(kernel: Any, tiles: Cut, features: Tensor, *arguments: Tensor | int | None, **settings: Any) -> None:
    """Start `kernel` on the device of `features`, its first argument; `settings` are known to the compiler."""
    with torch.cuda.device_of(features):
        kernel[(tiles.programs,)](
            features,
            *arguments,
            **settings,
            ROWS=tiles.rows,
            COLUMNS=tiles.columns,
            num_warps=_WARPS,
            enable_fp_fusion=True,  # said aloud, since Triton 3.9 warns of the default, which will change
        )


def statistics_dtype(features: Tensor) -> torch.dtype:
    """The type of sums and statistics: float32, for float64 features float64."""
    return torch.promote_types(features.dtype, torch.float32)


def in_channels_last(tensor: Tensor) -> Tensor:
    """The same numbers in channels_last, copied only where they are not."""
    return tensor.contiguous(memory_format=torch.channels_last)


@triton.jit
def locate(C, spans, COLUMNS: tl.constexpr):
    """The image, the span and the channels of this program; neighbors share pixels, and so lines of the cache."""
    program = tl.program_id(0)
    blocks = tl.cdiv(C, COLUMNS)
    columns = program % blocks * COLUMNS + tl.arange(0, COLUMNS)
    span = program // blocks % spans
    image = (program // blocks // spans).to(tl.int64)
    return image, span, columns


@triton.jit
def reflect(place, size):
    """The place inside [0, size) that a place up to size − 1 outside of it is the mirror image of."""
    place = tl.abs(place)
    return size - 1 - tl.abs(size - 1 - place)


@triton.jit
def gather(kept, padded, start, columns, end, H, W, C, PAD: tl.constexpr, ROWS: tl.constexpr, WIDE: tl.constexpr):
    """The gradient of the tile of pixels from `start` up to `end`: of the image itself, and of all its padded copies.

    Each pixel collects what padding copied it to, up to 9 places, always in the same order; so nothing is atomic. `kept`, the
    gradient of the image, or `padded`, that of the padded image, may be None.
    """
    rows = start + tl.arange(0, ROWS)
    inside = (rows < end)[:, None] & (columns < C)[None, :]
    total = tl.zeros(inside.shape, WIDE)
    if kept is not None:
        total += tl.load(kept + rows[:, None] * C + columns[None, :], mask=inside, other=0).to(WIDE)
    if padded is not None:
        y = (rows // W)[:, None]
        x = (rows % W)[:, None]
        total += _gather_line(padded, y + PAD, x, columns, inside, W, C, PAD, WIDE)
        if (start // W <= PAD) | (
            (start + ROWS - 1) // W >= H - 1 - PAD
        ):  # else no line of the tile has a mirror image
            above = inside & (y >= 1) & (y <= PAD)
            total += _gather_line(padded, PAD - y, x, columns, above, W, C, PAD, WIDE)
            below = inside & (y >= H - 1 - PAD) & (y <= H - 2)
            total += _gather_line(padded, 2 * (H - 1) - y + PAD, x, columns, below, W, C, PAD, WIDE)
    return total


@triton.jit
def _gather_line(padded, line, x, columns, inside, W, C, PAD: tl.constexpr, WIDE: tl.constexpr):
    """What pixels `x` of a padded line and their mirror images in it add up to."""
    at = padded + line * (W + 2 * PAD) * C + columns[None, :]
    total = tl.load(at + (x + PAD) * C, mask=inside, other=0).to(WIDE)
    left = inside & (x >= 1) & (x <= PAD)
    total += tl.load(at + (PAD - x) * C, mask=left, other=0).to(WIDE)
    right = inside & (x >= W - 1 - PAD) & (x <= W - 2)
    total += tl.load(at + (2 * (W - 1) - x + PAD) * C, mask=right, other=0).to(WIDE)
    return total

"""Tiling of channels_last features (N, C, H, W) for the kernels, and operations that they share.

An image is H·W rows of C numbers. A program processes one span of pixels of one block of channels of one image, tile by tile.
The tiling depends on shapes only, so the order of summation is always the same.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

_WARPS = 8
ELEMENTS = 4096
"""Elements of a tile: 16 per thread of eight warps."""
CHANNELS = 32
"""Maximum number of channels of a tile: two memory sectors for a two-byte dtype."""
PROGRAMS = 512
"""Target number of programs per launch: about four for each of the 132 multiprocessors of an H100."""

WHOLE_PIXELS = 64 * 64
"""Maximum pixels of an image that one program per block of channels reads twice: 128 kB, which its L1 cache holds."""
WHOLE_ROWS = 1024
"""Pixels of a tile: two sectors per thread of sixteen warps."""
_WHOLE_CHANNEL_BYTES = 32
"""Bytes of a block of channels: one memory sector."""
_WHOLE_WARPS = 16

_MAX_LAUNCHERS = 4096


class Cut(NamedTuple):
    """The tiling of a launch: `spans` of `span` pixels per image (the last may be shorter), in tiles of `rows` × `columns`."""

    rows: int
    columns: int
    spans: int
    span: int
    programs: int
    warps: int = _WARPS


def cut(images: int, channels: int, pixels: int, *, max_spans: int | None = None, tiles: int = 1) -> Cut:
    """Divide `images` of `pixels` × `channels` into about PROGRAMS programs, with at most `max_spans` spans per image.

    A tile has ELEMENTS / `tiles` elements, so that a kernel with many intermediate values per element does not spill registers.
    """
    return _cut(images, channels, pixels, max_spans, CHANNELS, ELEMENTS // tiles, PROGRAMS)


@functools.lru_cache(4096)
def _cut(
    images: int, channels: int, pixels: int, max_spans: int | None, max_columns: int, elements: int, programs: int
) -> Cut:
    columns = min(max_columns, _next_power_of_2(channels))
    rows = max(1, elements // columns)
    blocks = -(-channels // columns)
    tiles = -(-pixels // rows)
    target_spans = min(-(-programs // (images * blocks)), tiles, max_spans or tiles)
    span = -(-tiles // target_spans) * rows
    spans = -(-pixels // span)
    return Cut(rows, columns, spans, span, images * spans * blocks)


def cut_whole(features: Tensor, *, tiles: int = 1) -> Cut | None:
    """One program per image and block of channels, which needs no second launch to combine sums; None for large images.

    The time of a program depends on the number of pixels, not on the number of programs.
    """
    images, channels, height, width = features.shape
    if height * width > WHOLE_PIXELS:
        return None
    columns = min(_WHOLE_CHANNEL_BYTES // features.itemsize, _next_power_of_2(channels))
    programs = images * -(-channels // columns)
    return Cut(WHOLE_ROWS // tiles, columns, 1, height * width, programs, _WHOLE_WARPS)


def _next_power_of_2(number: int) -> int:
    return 1 << (number - 1).bit_length()


_launchers: dict[tuple[Any, ...], Callable[..., object]] = {}
"""Compiled kernels with their grids, by all that Triton compiles for. Triton's own lookup takes three times as long."""


def launch(
    kernel: Any, tiles: Cut, tensors: tuple[Tensor | None, ...], sizes: tuple[int, ...], **constants: object
) -> None:
    """Launch `kernel` on the device of the first tensor.

    Its parameters are `tensors`, `sizes` and `constants` in this order, then the rows and columns of a tile.
    """
    traits = [None if tensor is None else (tensor.dtype, tensor.data_ptr() % 16 == 0) for tensor in tensors]
    features = tensors[0]
    assert features is not None
    key = (kernel, features.device, tiles, sizes, *constants.values(), *traits)
    values = (*tensors, *sizes, *constants.values(), tiles.rows, tiles.columns)
    with torch.cuda.device_of(features):
        launcher = _launchers.get(key)
        if launcher is not None:
            launcher(*values)
            return
        # Fused multiply-add is the default, but Triton 3.9 warns that this will change.
        compiled = kernel[(tiles.programs,)](*values, num_warps=tiles.warps, enable_fp_fusion=True)
        if compiled is None:  # in the interpreter
            return
        if len(_launchers) == _MAX_LAUNCHERS:
            _launchers.clear()
        _launchers[key] = compiled[(tiles.programs, 1, 1)]


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

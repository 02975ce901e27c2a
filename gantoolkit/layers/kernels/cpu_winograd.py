"""3×3 convolutions with fewer multiplications (Winograd 1980; Lavin and Gray 2016).

A 3×3 filter makes m×m outputs from a tile of (m + 2)×(m + 2) inputs. Tiles are transformed, multiplied by transformed filters,
and transformed back: one product for each of the (m + 2)² places of a tile, where the plain way has 9·m². That is 4 times fewer
for m = 4, and 2.25 times for m = 2. The price is rounding: the larger m, the larger the numbers in between.

Everything is a matrix product over contiguous memory where images lie in channels_last.
"""

import functools
import threading
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from math import prod
from typing import Any

import torch
from torch import Tensor

__all__ = ["TILE", "winograd_convolution"]

TILE = {torch.float64: (4, 4), torch.float32: (4, 4), torch.bfloat16: (2, 2)}
"""Outputs along one side of a tile, m, by type. In float32, m = 4 stays within 3e-6 of the result, where the plain convolution
stays within 6e-7; in bfloat16, m = 2 has about twice the error of the plain one, and m = 4 would have seven times as much."""

_MOST_BYTES = 2**24
"""Of a buffer, unless one row of tiles takes more; three are as large. Larger ones are slower too."""

_POINTS = {2: (0, 1, -1), 4: (0, 1, -1, Fraction(1, 2), -2)}
"""Where the polynomials of Toom and Cook are evaluated, beside infinity. With ½ and −2 in place of 2 and −2 the numbers in
between are smaller, and so is the error (Barabasz et al. 2020)."""


def winograd_convolution(images: Tensor, weight: Tensor) -> Tensor:
    """Correlate `images` (N, C, H, W) with `weight` (K, C, 3, 3): (N, K, H − 2, W − 2) in channels_last, of the images' type.

    The weight is transformed in its own type, float32 as a rule, and rounded afterwards. The operation is one that
    torch.compile takes as it is.

    Args:
        images: Of a type in `TILE`, on a CPU.
    """
    return _convolve(images, weight)


@torch.library.custom_op("gantoolkit::winograd_convolution", mutates_args=())
def _convolve(images: Tensor, weight: Tensor) -> Tensor:
    count, _, height, width = images.shape
    made = images.new_empty(count, height - 2, width - 2, len(weight)).permute(0, 3, 1, 2)
    with torch.autocast("cpu", enabled=False):
        whole = _Grid(images, weight)
        transformed = whole.transform_weight(weight)
        for seen, given in whole.bands():
            band = images[:, :, seen]
            grid = _Grid(band, weight)
            products = grid.buffer("products", grid.above)
            torch.bmm(grid.transform_inputs(band), transformed, out=products)
            grid.collect_outputs(products, made[:, :, given])
    return made


@torch.library.custom_op("gantoolkit::winograd_convolution_backward", mutates_args=())
def _convolve_backward(
    gradient: Tensor, images: Tensor, weight: Tensor, wants_images: bool, wants_weight: bool
) -> tuple[Tensor, Tensor]:
    to_images = torch.zeros_like(images, memory_format=torch.channels_last) if wants_images else images.new_empty(0)
    wide = torch.promote_types(weight.dtype, torch.float32)
    to_weight = torch.zeros_like(weight, dtype=wide) if wants_weight else weight.new_empty(0)
    with torch.autocast("cpu", enabled=False):
        whole = _Grid(images, weight)
        transformed = whole.transform_weight(weight).transpose(1, 2) if wants_images else None
        for seen, given in whole.bands():
            band = images[:, :, seen]
            grid = _Grid(band, weight)
            above = grid.spread_gradient(gradient[:, :, given])
            if wants_weight:
                inputs = grid.transform_inputs(band)
                products = torch.bmm(inputs.transpose(1, 2), above, out=grid.buffer("weight", grid.weights))
                to_weight += grid.collect_weight(products, weight)
            if transformed is not None:
                products = torch.bmm(above, transformed, out=grid.buffer("inputs", grid.inputs))
                to_images[:, :, seen] += grid.overlap_inputs(products)
    return to_images, to_weight.to(weight.dtype)


@_convolve.register_fake
def _(images: Tensor, weight: Tensor) -> Tensor:
    count, _, height, width = images.shape
    made = images.new_empty(count, len(weight), height - 2, width - 2)
    return made.contiguous(memory_format=torch.channels_last)


@_convolve_backward.register_fake
def _(
    gradient: Tensor, images: Tensor, weight: Tensor, wants_images: bool, wants_weight: bool
) -> tuple[Tensor, Tensor]:
    to_images = torch.empty_like(images, memory_format=torch.channels_last) if wants_images else images.new_empty(0)
    return to_images, torch.empty_like(weight) if wants_weight else weight.new_empty(0)


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _differentiate(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
    images, weight = ctx.saved_tensors
    wanted = [bool(wants) for wants in ctx.needs_input_grad[:2]]
    if torch.is_grad_enabled():  # a gradient of the gradient is wanted: the plain convolution's has one
        plain = torch.ops.aten.convolution_backward(
            gradient, images, weight.to(images), None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1, [*wanted, False]
        )
        return plain[0] if wanted[0] else None, plain[1].to(weight) if wanted[1] else None
    made = _convolve_backward(gradient, images, weight, *wanted)
    return made[0] if wanted[0] else None, made[1] if wanted[1] else None


_convolve.register_autograd(_differentiate, setup_context=_keep)


class _Grid:
    """How the images of one convolution lie in tiles, and the four transforms, each over all places of a tile at once.

    A transform along both sides of a tile is one matrix, the Kronecker product of the one-dimensional matrix with itself.
    """

    def __init__(self, images: Tensor, weight: Tensor) -> None:
        self.dtype = images.dtype
        self.tile = TILE[self.dtype]
        self.reach = (self.tile[0] + 2, self.tile[1] + 2)
        self.places = self.reach[0] * self.reach[1]
        self.count, self.channels, height, width = images.shape
        self.filters = len(weight)
        self.outputs = (height - 2, width - 2)
        self.rows, self.columns = (-(-size // m) for size, m in zip(self.outputs, self.tile, strict=True))
        tiles = self.count * self.rows * self.columns
        self.inputs = (self.places, tiles, self.channels)
        self.above = (self.places, tiles, self.filters)
        self.weights = (self.places, self.channels, self.filters)
        self.outward, self.of_weight, self.inward = _transforms(*self.tile)

    def bands(self) -> Iterator[tuple[slice, slice]]:
        """Rows of the images, and the rows of outputs that are made of them, so few at once that buffers stay small."""
        row = self.places * self.count * self.columns * max(self.channels, self.filters) * self.dtype.itemsize
        count = -(-self.rows // max(1, _MOST_BYTES // max(1, row)))
        edges = [self.rows * number // count * self.tile[0] for number in range(count)]
        for first, last in pairwise([*edges, self.outputs[0]]):
            yield slice(first, last + 2), slice(first, last)

    def transform_inputs(self, images: Tensor) -> Tensor:
        """Bᵀ d B for each tile d: (places, tiles, C)."""
        (tall, wide), (down, right) = self.reach, self.tile
        padded = self._fill(images, self.rows * down + 2, self.columns * right + 2)
        if self.tile == (2, 2):
            lines = self.buffer("tiles", (4, self.count, self.rows, padded.shape[3], self.channels))
            made = self.buffer("inputs", (4, 4, self.count, self.rows, self.columns, self.channels))
            _spread(padded.permute(0, 2, 3, 1), 1, lines.unbind())
            _spread(lines, 3, made.unbind(1))
            return made.view(self.inputs)
        tiles = padded.permute(0, 2, 3, 1).unfold(1, tall, down).unfold(2, wide, right).permute(4, 5, 0, 1, 2, 3)
        gathered = self.buffer("tiles", tiles.shape).copy_(tiles).view(self.places, -1)
        return self._multiply(self.inward, gathered, "inputs").view(self.inputs)

    def transform_weight(self, weight: Tensor) -> Tensor:
        """G g Gᵀ for each filter g: (places, C, K)."""
        ordered = weight.permute(2, 3, 1, 0)
        flat = self.buffer("filters", ordered.shape, weight.dtype).copy_(ordered).view(9, -1)
        made = self._multiply(self.of_weight, flat, "transformed filters").view(self.weights)
        return made if weight.dtype == self.dtype else self.buffer("rounded filters", self.weights).copy_(made)

    def collect_outputs(self, products: Tensor, out: Tensor) -> None:
        """Aᵀ m A for each tile m of products, put where it belongs in (N, K, H − 2, W − 2)."""
        down, right = self.tile
        tiles = self._multiply(self.outward, products.view(self.places, -1), "outputs")
        tiles = tiles.view(down, right, self.count, self.rows, self.columns, self.filters).permute(2, 3, 0, 4, 1, 5)
        pixels, whole = out.permute(0, 2, 3, 1), (self.rows * down, self.columns * right)
        made = pixels if whole == self.outputs else tiles.new_empty(self.count, *whole, self.filters)
        made.unflatten(2, (-1, right)).unflatten(1, (-1, down)).copy_(tiles)
        if made is not pixels:
            pixels.copy_(made[:, : self.outputs[0], : self.outputs[1]])

    def spread_gradient(self, gradient: Tensor) -> Tensor:
        """A y Aᵀ for each tile y of the outputs' gradient: (places, tiles, K)."""
        down, right = self.tile
        padded = self._fill(gradient, self.rows * down, self.columns * right).permute(0, 2, 3, 1)
        tiles = padded.reshape(self.count, self.rows, down, self.columns, right, self.filters).permute(2, 4, 0, 1, 3, 5)
        gathered = self.buffer("outputs", tiles.shape).copy_(tiles).view(down * right, -1)
        return self._multiply(self.outward.t(), gathered, "products").view(self.above)

    def collect_weight(self, products: Tensor, weight: Tensor) -> Tensor:
        """Gᵀ p G for each filter's products p: (K, C, 3, 3)."""
        flat = products.view(self.places, -1)
        if weight.dtype != self.dtype:
            flat = self.buffer("transformed filters", flat.shape, weight.dtype).copy_(flat)
        made = self._multiply(self.of_weight.t(), flat, "filters").view(3, 3, self.channels, self.filters)
        return torch.empty_like(weight).copy_(made.permute(3, 2, 0, 1))

    def overlap_inputs(self, products: Tensor) -> Tensor:
        """B p Bᵀ for each tile's products p, added where tiles overlap: (N, C, H, W)."""
        down, right = self.tile
        height, width = self.rows * down + 2, self.columns * right + 2
        made = products.new_empty(self.count, height, width, self.channels)
        if self.tile == (2, 2):
            tiles = products.view(4, 4, self.count, self.rows, self.columns, self.channels)
            lines = self.buffer("tiles", (4, self.count, self.rows, width, self.channels))
            _gather(tiles.unbind(1), 3, lines)
            _gather(lines.unbind(), 1, made)
        else:
            self._overlap(products, made)
        fitting = made[:, : self.outputs[0] + 2, : self.outputs[1] + 2]
        return fitting.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)

    def _overlap(self, products: Tensor, made: Tensor) -> None:
        down, right = self.tile
        flat = self._multiply(self.inward.t(), products.view(self.places, -1), "tiles")
        tiles = flat.view(*self.reach, self.count, self.rows, self.columns, self.channels)
        _, height, width, _ = made.shape
        made[:, height - 2 :] = 0
        made[:, :, width - 2 :] = 0
        image, line, pixel, _ = made.stride()

        def place(top: int, left: int, tall: int, wide: int) -> Tensor:
            """The `tall` by `wide` pixels of every tile that begin at `top` and `left`."""
            shape = (tall, wide, *tiles.shape[2:])
            strides = (line, pixel, image, down * line, right * pixel, 1)
            return made.as_strided(shape, strides, top * line + left * pixel)

        place(0, 0, down, right).copy_(tiles[:down, :right])
        place(down, 0, 2, right).add_(tiles[down:, :right])
        place(0, right, down, 2).add_(tiles[:down, right:])
        place(down, right, 2, 2).add_(tiles[down:, right:])

    def buffer(self, name: str, shape: tuple[int, ...] | torch.Size, dtype: torch.dtype | None = None) -> Tensor:
        """Memory of this thread for what is needed inside one convolution alone; of the images' type, if none is given.

        Fresh memory of this size has to be mapped page by page by the system, which takes longer than a transform.
        """
        dtype = dtype or self.dtype
        held, key, size = vars(_held), f"{name} {dtype}", prod(shape)
        if key not in held or held[key].numel() < size:
            with torch.inference_mode(False):  # what is allocated while translating may be used while training
                held[key] = torch.empty(size, dtype=dtype)
        return held[key][:size].view(shape)

    def _multiply(self, matrix: Tensor, flat: Tensor, name: str) -> Tensor:
        return torch.mm(matrix.to(flat), flat, out=self.buffer(name, (len(matrix), flat.shape[1]), flat.dtype))

    def _fill(self, images: Tensor, height: int, width: int) -> Tensor:
        """Zeros to the right and below until the tiles fit."""
        below, right = height - images.shape[2], width - images.shape[3]
        filled = torch.nn.functional.pad(images, (0, right, 0, below)) if below or right else images
        return filled.contiguous(memory_format=torch.channels_last)


_held = threading.local()


def _spread(lines: Tensor, dim: int, places: Sequence[Tensor]) -> None:
    """Bᵀ of F(2, 3) along one dimension, whose tiles overlap by half: of 0, 1 and −1, and sooner added than multiplied."""
    first, second, third, fourth = (_every_other(lines, dim, start) for start in range(4))
    torch.sub(third, first, out=places[0])
    torch.add(second, third, out=places[1])
    torch.sub(third, second, out=places[2])
    torch.sub(fourth, second, out=places[3])


def _gather(places: Sequence[Tensor], dim: int, lines: Tensor) -> None:
    """The transpose of `_spread`: every line collects from the tiles that it is part of."""
    even, odd = lines.unflatten(dim, (-1, 2)).unbind(dim + 1)
    count = even.shape[dim] - 1
    even.narrow(dim, 0, 1).zero_()
    torch.add(places[0], places[1], out=even.narrow(dim, 1, count)).add_(places[2])
    even.narrow(dim, 0, count).sub_(places[0])
    odd.narrow(dim, count, 1).zero_()
    torch.sub(places[1], places[2], out=odd.narrow(dim, 0, count)).sub_(places[3])
    odd.narrow(dim, 1, count).add_(places[3])


def _every_other(lines: Tensor, dim: int, start: int) -> Tensor:
    """Lines `start`, `start` + 2, ..., as many as there are tiles."""
    count = lines.shape[dim] // 2 - 1
    return lines[(*[slice(None)] * dim, slice(start, start + 2 * count - 1, 2))]


@functools.cache
def _transforms(down: int, right: int) -> tuple[Tensor, Tensor, Tensor]:
    """Aᵀ ⊗ Aᵀ, G ⊗ G and Bᵀ ⊗ Bᵀ of F(down × right, 3 × 3), in float64."""
    first, second, third = (torch.kron(one, other) for one, other in zip(_along(down), _along(right), strict=True))
    return first, second, third


def _along(m: int) -> tuple[Tensor, Tensor, Tensor]:
    """Aᵀ, G and Bᵀ of F(m, 3)."""
    points = [Fraction(point) for point in _POINTS[m]]
    # Lagrange's polynomials, by their coefficients; the last place is infinity.
    scales = [prod((p - q for q in points if q != p), start=Fraction(1)) for p in points]
    outward = [[p**power for p in points] + [Fraction(power == m - 1)] for power in range(m)]
    of_weight = [[p**power / scale for power in range(3)] for p, scale in zip(points, scales, strict=True)]
    inward = [[*_with_roots([q for q in points if q != p]), Fraction(0)] for p in points]
    of_weight.append([Fraction(0), Fraction(0), Fraction(1)])
    inward.append(_with_roots(points))
    first, second, third = (
        torch.tensor([[float(x) for x in row] for row in rows], dtype=torch.float64)
        for rows in (outward, of_weight, inward)
    )
    return first, second, third


def _with_roots(roots: list[Fraction]) -> list[Fraction]:
    """The coefficients of ∏(x − root), the constant first."""
    coefficients = [Fraction(1)]
    for root in roots:
        shifted, scaled = [Fraction(0), *coefficients], [-root * c for c in coefficients] + [Fraction(0)]
        coefficients = [a + b for a, b in zip(shifted, scaled, strict=True)]
    return coefficients

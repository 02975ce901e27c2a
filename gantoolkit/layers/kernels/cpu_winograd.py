"""3×3 convolutions with fewer multiplications (Winograd 1980; Lavin and Gray 2016).

A 3×3 filter computes m×m outputs from a tile of (m + 2)×(m + 2) inputs. Tiles are transformed, multiplied by transformed
filters, and transformed back: one product for each of the (m + 2)² positions of a tile, where direct convolution needs 9·m².
That is 4 times fewer for m = 4, and 2.25 times fewer for m = 2. The cost is rounding error: intermediate values grow with m.

For channels_last images, everything is a matrix product over contiguous memory.
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

__all__ = ["TILE", "free_buffers", "winograd_convolution"]

TILE = {torch.float64: (4, 4), torch.float32: (4, 4), torch.bfloat16: (2, 2)}
"""Outputs along each side of a tile, m, by dtype. In float32, m = 4 has an error of 3e-6, direct convolution of 6e-7. In
bfloat16, m = 2 has about twice the error of direct convolution; m = 4 would have seven times the error."""

_MAX_BUFFER_BYTES = 2**24
"""Maximum size of a buffer, unless one row of tiles needs more. Three buffers have this size. Larger ones are slower."""

_POINTS = {2: (0, 1, -1), 4: (0, 1, -1, Fraction(1, 2), -2)}
"""The points at which the Toom-Cook polynomials are evaluated, besides infinity. With ½ and −2 in place of 2 and −2,
intermediate values are smaller, and so is the error (Barabasz et al. 2020)."""


def winograd_convolution(images: Tensor, weight: Tensor) -> Tensor:
    """Correlate `images` (N, C, H, W) with `weight` (K, C, 3, 3) to (N, K, H − 2, W − 2), in channels_last.

    The result has the dtype of the images. The weight is transformed in its own dtype, usually float32, and rounded afterwards.
    To torch.compile, this is one opaque operator.

    Args:
        images: On a CPU, with a dtype in `TILE`.
        weight: The filters.
    """
    return _convolve(images, weight)


def free_buffers() -> None:
    """Free this thread's buffers for temporary values; the next convolution allocates them again."""
    vars(_buffers).clear()


@torch.library.custom_op("gantoolkit::winograd_convolution", mutates_args=())
def _convolve(images: Tensor, weight: Tensor) -> Tensor:
    count, _, height, width = images.shape
    output = images.new_empty(count, height - 2, width - 2, len(weight)).permute(0, 3, 1, 2)
    with torch.autocast("cpu", enabled=False):
        grid = _Grid(images, weight)
        transformed = grid.transform_weight(weight)
        for image_rows, output_rows in grid.bands():
            band = images[:, :, image_rows]
            band_grid = _Grid(band, weight)
            products = band_grid.buffer("products", band_grid.product_shape)
            torch.bmm(band_grid.transform_inputs(band), transformed, out=products)
            band_grid.collect_outputs(products, output[:, :, output_rows])
    return output


@torch.library.custom_op("gantoolkit::winograd_convolution_backward", mutates_args=())
def _convolve_backward(
    gradient: Tensor, images: Tensor, weight: Tensor, needs_images: bool, needs_weight: bool
) -> tuple[Tensor, Tensor]:
    to_images = torch.zeros_like(images, memory_format=torch.channels_last) if needs_images else images.new_empty(0)
    wide = torch.promote_types(weight.dtype, torch.float32)
    to_weight = torch.zeros_like(weight, dtype=wide) if needs_weight else weight.new_empty(0)
    with torch.autocast("cpu", enabled=False):
        grid = _Grid(images, weight)
        transformed = grid.transform_weight(weight).transpose(1, 2) if needs_images else None
        for image_rows, output_rows in grid.bands():
            band = images[:, :, image_rows]
            band_grid = _Grid(band, weight)
            products_gradient = band_grid.spread_gradient(gradient[:, :, output_rows])
            if needs_weight:
                inputs = band_grid.transform_inputs(band)
                products = torch.bmm(
                    inputs.transpose(1, 2), products_gradient, out=band_grid.buffer("weight", band_grid.weight_shape)
                )
                to_weight += band_grid.collect_weight(products, weight)
            if transformed is not None:
                products = torch.bmm(
                    products_gradient, transformed, out=band_grid.buffer("inputs", band_grid.input_shape)
                )
                to_images[:, :, image_rows] += band_grid.overlap_inputs(products)
    return to_images, to_weight.to(weight.dtype)


@_convolve.register_fake
def _(images: Tensor, weight: Tensor) -> Tensor:
    count, _, height, width = images.shape
    output = images.new_empty(count, len(weight), height - 2, width - 2)
    return output.contiguous(memory_format=torch.channels_last)


@_convolve_backward.register_fake
def _(
    gradient: Tensor, images: Tensor, weight: Tensor, needs_images: bool, needs_weight: bool
) -> tuple[Tensor, Tensor]:
    to_images = torch.empty_like(images, memory_format=torch.channels_last) if needs_images else images.new_empty(0)
    return to_images, torch.empty_like(weight) if needs_weight else weight.new_empty(0)


def _save_inputs(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _differentiate(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
    images, weight = ctx.saved_tensors
    needed = [bool(needs) for needs in ctx.needs_input_grad[:2]]
    if torch.is_grad_enabled():  # double backward: the gradient of the direct convolution is differentiable
        plain = torch.ops.aten.convolution_backward(
            gradient, images, weight.to(images), None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1, [*needed, False]
        )
        return plain[0] if needed[0] else None, plain[1].to(weight) if needed[1] else None
    to_images, to_weight = _convolve_backward(gradient, images, weight, *needed)
    return to_images if needed[0] else None, to_weight if needed[1] else None


_convolve.register_autograd(_differentiate, setup_context=_save_inputs)


class _Grid:
    """The tiling of the images of one convolution, and its transforms, each over all positions of a tile at once.

    A two-dimensional transform is one matrix: the Kronecker product of the matrices for the two sides.
    """

    def __init__(self, images: Tensor, weight: Tensor) -> None:
        self.dtype = images.dtype
        self.tile = TILE[self.dtype]
        self.reach = (self.tile[0] + 2, self.tile[1] + 2)
        self.positions = self.reach[0] * self.reach[1]
        self.count, self.channels, height, width = images.shape
        self.filters = len(weight)
        self.output_size = (height - 2, width - 2)
        self.rows, self.columns = (-(-size // m) for size, m in zip(self.output_size, self.tile, strict=True))
        tiles = self.count * self.rows * self.columns
        self.input_shape = (self.positions, tiles, self.channels)
        self.product_shape = (self.positions, tiles, self.filters)
        self.weight_shape = (self.positions, self.channels, self.filters)
        self.output_transform, self.weight_transform, self.input_transform = _transforms(*self.tile)

    def bands(self) -> Iterator[tuple[slice, slice]]:
        """Yield bands of image rows and the output rows computed from them, small enough for the maximum buffer size."""
        row = self.positions * self.count * self.columns * max(self.channels, self.filters) * self.dtype.itemsize
        count = -(-self.rows // max(1, _MAX_BUFFER_BYTES // max(1, row)))
        edges = [self.rows * number // count * self.tile[0] for number in range(count)]
        for first, last in pairwise([*edges, self.output_size[0]]):
            yield slice(first, last + 2), slice(first, last)

    def transform_inputs(self, images: Tensor) -> Tensor:
        """Compute Bᵀ d B for each tile d, as (positions, tiles, C)."""
        (tall, wide), (down, right) = self.reach, self.tile
        padded = self._fill(images, self.rows * down + 2, self.columns * right + 2)
        if self.tile == (2, 2):
            lines = self.buffer("tiles", (4, self.count, self.rows, padded.shape[3], self.channels))
            inputs = self.buffer("inputs", (4, 4, self.count, self.rows, self.columns, self.channels))
            _spread(padded.permute(0, 2, 3, 1), 1, lines.unbind())
            _spread(lines, 3, inputs.unbind(1))
            return inputs.view(self.input_shape)
        tiles = padded.permute(0, 2, 3, 1).unfold(1, tall, down).unfold(2, wide, right).permute(4, 5, 0, 1, 2, 3)
        gathered = self.buffer("tiles", tiles.shape).copy_(tiles).view(self.positions, -1)
        return self._multiply(self.input_transform, gathered, "inputs").view(self.input_shape)

    def transform_weight(self, weight: Tensor) -> Tensor:
        """Compute G g Gᵀ for each filter g, as (positions, C, K)."""
        ordered = weight.permute(2, 3, 1, 0)
        flat = self.buffer("filters", ordered.shape, weight.dtype).copy_(ordered).view(9, -1)
        transformed = self._multiply(self.weight_transform, flat, "transformed filters").view(self.weight_shape)
        return (
            transformed
            if weight.dtype == self.dtype
            else self.buffer("rounded filters", self.weight_shape).copy_(transformed)
        )

    def collect_outputs(self, products: Tensor, out: Tensor) -> None:
        """Compute Aᵀ m A for each tile m of products, and write it to `out` (N, K, H − 2, W − 2)."""
        down, right = self.tile
        tiles = self._multiply(self.output_transform, products.view(self.positions, -1), "outputs")
        tiles = tiles.view(down, right, self.count, self.rows, self.columns, self.filters).permute(2, 3, 0, 4, 1, 5)
        pixels, whole = out.permute(0, 2, 3, 1), (self.rows * down, self.columns * right)
        target = pixels if whole == self.output_size else tiles.new_empty(self.count, *whole, self.filters)
        target.unflatten(2, (-1, right)).unflatten(1, (-1, down)).copy_(tiles)
        if target is not pixels:
            pixels.copy_(target[:, : self.output_size[0], : self.output_size[1]])

    def spread_gradient(self, gradient: Tensor) -> Tensor:
        """Compute A y Aᵀ for each tile y of the outputs' gradient, as (positions, tiles, K)."""
        down, right = self.tile
        padded = self._fill(gradient, self.rows * down, self.columns * right).permute(0, 2, 3, 1)
        tiles = padded.reshape(self.count, self.rows, down, self.columns, right, self.filters).permute(2, 4, 0, 1, 3, 5)
        gathered = self.buffer("outputs", tiles.shape).copy_(tiles).view(down * right, -1)
        return self._multiply(self.output_transform.t(), gathered, "products").view(self.product_shape)

    def collect_weight(self, products: Tensor, weight: Tensor) -> Tensor:
        """Compute Gᵀ p G for each filter's products p, as (K, C, 3, 3)."""
        flat = products.view(self.positions, -1)
        if weight.dtype != self.dtype:
            flat = self.buffer("transformed filters", flat.shape, weight.dtype).copy_(flat)
        filters = self._multiply(self.weight_transform.t(), flat, "filters").view(3, 3, self.channels, self.filters)
        return torch.empty_like(weight).copy_(filters.permute(3, 2, 0, 1))

    def overlap_inputs(self, products: Tensor) -> Tensor:
        """Compute B p Bᵀ for each tile's products p, and sum overlapping tiles to (N, C, H, W)."""
        down, right = self.tile
        height, width = self.rows * down + 2, self.columns * right + 2
        total = products.new_empty(self.count, height, width, self.channels)
        if self.tile == (2, 2):
            tiles = products.view(4, 4, self.count, self.rows, self.columns, self.channels)
            lines = self.buffer("tiles", (4, self.count, self.rows, width, self.channels))
            _gather(tiles.unbind(1), 3, lines)
            _gather(lines.unbind(), 1, total)
        else:
            self._overlap(products, total)
        cropped = total[:, : self.output_size[0] + 2, : self.output_size[1] + 2]
        return cropped.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)

    def _overlap(self, products: Tensor, total: Tensor) -> None:
        down, right = self.tile
        flat = self._multiply(self.input_transform.t(), products.view(self.positions, -1), "tiles")
        tiles = flat.view(*self.reach, self.count, self.rows, self.columns, self.channels)
        _, height, width, _ = total.shape
        total[:, height - 2 :] = 0
        total[:, :, width - 2 :] = 0
        image, line, pixel, _ = total.stride()

        def pixels_at(top: int, left: int, tall: int, wide: int) -> Tensor:
            """View the `tall` by `wide` pixels of every tile from (`top`, `left`) on."""
            shape = (tall, wide, *tiles.shape[2:])
            strides = (line, pixel, image, down * line, right * pixel, 1)
            return total.as_strided(shape, strides, top * line + left * pixel)

        pixels_at(0, 0, down, right).copy_(tiles[:down, :right])
        pixels_at(down, 0, 2, right).add_(tiles[down:, :right])
        pixels_at(0, right, down, 2).add_(tiles[:down, right:])
        pixels_at(down, right, 2, 2).add_(tiles[down:, right:])

    def buffer(self, name: str, shape: tuple[int, ...] | torch.Size, dtype: torch.dtype | None = None) -> Tensor:
        """Return this thread's reusable buffer for temporary values; the dtype defaults to that of the images.

        The system maps new memory of this size page by page, which takes longer than a transform.
        """
        dtype = dtype or self.dtype
        buffers, key, size = vars(_buffers), f"{name} {dtype}", prod(shape)
        if key not in buffers or buffers[key].numel() < size:
            with torch.inference_mode(False):  # a buffer allocated in inference mode could not be used in training
                buffers[key] = torch.empty(size, dtype=dtype)
        return buffers[key][:size].view(shape)

    def _multiply(self, matrix: Tensor, flat: Tensor, name: str) -> Tensor:
        return torch.mm(matrix.to(flat), flat, out=self.buffer(name, (len(matrix), flat.shape[1]), flat.dtype))

    def _fill(self, images: Tensor, height: int, width: int) -> Tensor:
        """Pad with zeros at the right and the bottom to whole tiles."""
        below, right = height - images.shape[2], width - images.shape[3]
        filled = torch.nn.functional.pad(images, (0, right, 0, below)) if below or right else images
        return filled.contiguous(memory_format=torch.channels_last)


_buffers = threading.local()


def _spread(lines: Tensor, dim: int, tiles: Sequence[Tensor]) -> None:
    """Apply Bᵀ of F(2, 3) along one dimension. Its entries are 0, 1 and −1, so additions are faster than a product."""
    first, second, third, fourth = (_every_other(lines, dim, start) for start in range(4))
    torch.sub(third, first, out=tiles[0])
    torch.add(second, third, out=tiles[1])
    torch.sub(third, second, out=tiles[2])
    torch.sub(fourth, second, out=tiles[3])


def _gather(tiles: Sequence[Tensor], dim: int, lines: Tensor) -> None:
    """The transpose of `_spread`: sum the tiles that each line belongs to."""
    even, odd = lines.unflatten(dim, (-1, 2)).unbind(dim + 1)
    count = even.shape[dim] - 1
    even.narrow(dim, 0, 1).zero_()
    torch.add(tiles[0], tiles[1], out=even.narrow(dim, 1, count)).add_(tiles[2])
    even.narrow(dim, 0, count).sub_(tiles[0])
    odd.narrow(dim, count, 1).zero_()
    torch.sub(tiles[1], tiles[2], out=odd.narrow(dim, 0, count)).sub_(tiles[3])
    odd.narrow(dim, 1, count).add_(tiles[3])


def _every_other(lines: Tensor, dim: int, start: int) -> Tensor:
    """Lines `start`, `start` + 2, ..., one per tile."""
    count = lines.shape[dim] // 2 - 1
    return lines[(*[slice(None)] * dim, slice(start, start + 2 * count - 1, 2))]


@functools.cache
def _transforms(down: int, right: int) -> tuple[Tensor, Tensor, Tensor]:
    """Aᵀ ⊗ Aᵀ, G ⊗ G and Bᵀ ⊗ Bᵀ of F(down × right, 3 × 3), in float64."""
    pairs = zip(_transforms_1d(down), _transforms_1d(right), strict=True)
    first, second, third = (torch.kron(one, other) for one, other in pairs)
    return first, second, third


def _transforms_1d(m: int) -> tuple[Tensor, Tensor, Tensor]:
    """Aᵀ, G and Bᵀ of F(m, 3)."""
    points = [Fraction(point) for point in _POINTS[m]]
    # Coefficients of the Lagrange polynomials; the last row or column is for the point at infinity.
    scales = [prod((p - q for q in points if q != p), start=Fraction(1)) for p in points]
    output_transform = [[p**power for p in points] + [Fraction(power == m - 1)] for power in range(m)]
    weight_transform = [[p**power / scale for power in range(3)] for p, scale in zip(points, scales, strict=True)]
    input_transform = [[*_polynomial([q for q in points if q != p]), Fraction(0)] for p in points]
    weight_transform.append([Fraction(0), Fraction(0), Fraction(1)])
    input_transform.append(_polynomial(points))
    first, second, third = (
        torch.tensor([[float(x) for x in row] for row in rows], dtype=torch.float64)
        for rows in (output_transform, weight_transform, input_transform)
    )
    return first, second, third


def _polynomial(roots: list[Fraction]) -> list[Fraction]:
    """The coefficients of ∏(x − root), the constant first."""
    coefficients = [Fraction(1)]
    for root in roots:
        shifted, scaled = [Fraction(0), *coefficients], [-root * c for c in coefficients] + [Fraction(0)]
        coefficients = [a + b for a, b in zip(shifted, scaled, strict=True)]
    return coefficients

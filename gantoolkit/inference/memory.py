"""The memory that a translation takes, and the tiles with which it fits into the free memory."""

import math
from functools import cached_property
from typing import Literal

import torch

from gantoolkit.cost.step_cost import count_translation_bytes
from gantoolkit.data.images import MAX_PIXELS
from gantoolkit.errors import DataError
from gantoolkit.inference.padding import acceptable_size
from gantoolkit.inference.tiling import measure_reach, padded_tile_length
from gantoolkit.recipes.building import size_multiple_of
from gantoolkit.runs import LoadedGenerator
from gantoolkit.runtime.memory import MARGIN, available_memory, format_bytes

__all__ = ["CACHE_SHARE", "Tile", "TranslationMemory"]

Tile = int | Literal["auto"] | None
"""Largest side of a tile in pixels. `auto` uses tiles only if the free memory requires them, and as large ones as it allows;
None never does."""

CACHE_SHARE = 0.5
_CPU = torch.device("cpu")
_WHOLE_PIXELS = 1 << 20
"""With `auto`, images of up to this many pixels are always translated whole."""
_SCRATCH = 2 * 16 * 4
"""Bytes for each pixel of a tile: CPU convolutions pad the inputs and outputs of narrow layers to 16 channels."""
_PINNED_ROUNDING = 2
"""PyTorch rounds the size of a block of pinned memory up to a power of two."""
_LIBRARIES = 200_000_000
"""Bytes by which a process grows at its first convolution: 160 MB were measured."""
_PILLOW_BYTES = 4
"""Bytes in which Pillow stores a color while it writes an image."""
_SIDES = (4096, 2048, 1024, 512, 256)
"""Tile sides from which `auto` chooses."""


class TranslationMemory:
    """The memory that a generator takes to translate images on its device.

    Args:
        generator: The generator.
        device: Its device.
        tile: Whether large images are translated in tiles.
    """

    def __init__(self, generator: LoadedGenerator, device: torch.device, tile: Tile) -> None:
        self.generator, self.device, self.tile = generator, device, tile
        self.cache_share = CACHE_SHARE
        """Share of the free memory, of the device and then of the host, in which tiles may cache features; less is slower."""
        self._auto_tiles: dict[tuple[int, ...], int | None] = {}

    @cached_property
    def reach(self) -> int:
        """How far an output depends on inputs, in pixels; see `gantoolkit.inference.tiling.measure_reach`."""
        return measure_reach(self.generator.network, self.generator.source.channels)

    def choose_tile(self, count: int, height: int, width: int) -> int | None:
        """The side of the tiles for images of a size, or None to translate them whole."""
        if self.tile is None or isinstance(self.tile, int):
            return self.tile if self.tile and max(height, width) > self.tile else None
        if count * height * width <= _WHOLE_PIXELS:
            return None
        if (count, height, width) not in self._auto_tiles:
            self._auto_tiles[count, height, width] = self._largest_fitting_tile(count, height, width)
        return self._auto_tiles[count, height, width]

    def bound(self, height: int, width: int) -> int:
        """An upper bound on the bytes that translating one image takes at a time.

        It covers the pixels of the image and of its translation, the network's computation (for a tile with its border, or for
        the whole image), and the cached features of tiles. In tiles and with `cache_share = 0`, everything but the pixels is
        bounded by what a full tile takes, however large the image is. On CUDA, it is the sum for host and device.
        docs/tutorials/large-images.md compares the bound with measurements.
        """
        tile = self.choose_tile(1, height, width)
        bound = self._pixel_bytes(height, width, tile) + self._network_bytes(height, width, tile)
        if tile is None:
            return bound
        own_bytes, pinned_bytes = self.cache_bytes((height, width), tile)
        return bound + own_bytes + _PINNED_ROUNDING * pinned_bytes

    def check(self, height: int, width: int) -> None:
        """Check that a large image, whose pixels are in memory, can be translated and written with the free memory.

        Raises:
            DataError: When the memory is not enough.
        """
        if height * width <= MAX_PIXELS:
            return
        tile, needed = self.choose_tile(1, height, width), self._written_bytes(height, width)
        needed += self._network_bytes(height, width, tile) if self.device.type == "cpu" else 0
        free = available_memory(_CPU)
        if free is not None and needed > free:
            raise DataError(
                f"an image of {width}×{height} pixels takes {format_bytes(needed)} of memory to translate"
                f"{'' if tile else ' without tiles'}, and {format_bytes(free)} are free"
            )

    def cache_bytes(self, size: tuple[int, int], tile: int) -> tuple[int, int]:
        """Bytes in which tiles may cache features on the device, and beyond them in the host's memory."""
        host = int(self.cache_share * (available_memory(_CPU) or 0))
        if self.device.type == "cpu":
            return host, 0
        free = available_memory(self.device) or 0
        remaining = free - self._required_bytes(1, *self._padded_tile_size(*size, tile))
        return max(0, int(min(self.cache_share * free, remaining))), host // _PINNED_ROUNDING

    def _written_bytes(self, height: int, width: int) -> int:
        """Bytes of a translation's values, and of their copy while they are written."""
        pixel_bytes = self.generator.target.bytes_per_pixel
        return height * width * (pixel_bytes + max(pixel_bytes, _PILLOW_BYTES))

    def _pixel_bytes(self, height: int, width: int, tile: int | None) -> int:
        """Bytes of an image and its translation: their values, or floats if the image is translated whole."""
        source, target = self.generator.source, self.generator.target
        if tile is None:
            return 4 * height * width * (source.channels + target.channels)
        return height * width * (source.bytes_per_pixel + target.bytes_per_pixel)

    def _network_bytes(self, height: int, width: int, tile: int | None) -> int:
        """Bytes of the network's computation for the whole image, or for a tile with its border."""
        if tile is None:
            return int(self._required_bytes(1, height, width))
        tile_size = self._padded_tile_size(height, width, tile)
        return int(self._required_bytes(1, *tile_size)) + _SCRATCH * math.prod(tile_size) + _LIBRARIES

    def _largest_fitting_tile(self, count: int, height: int, width: int) -> int | None:
        free = available_memory(self.device)
        if free is None or self._required_bytes(count, height, width) <= free:
            return None
        if self.device.type == "cpu":
            limit = free - self._written_bytes(height, width)
            fitting = (side for side in _SIDES if self._network_bytes(height, width, side) <= limit)
        else:  # there is room for the cached features of large images only if tiles leave some of it
            fitting = (
                side
                for side in _SIDES
                if self._required_bytes(1, *self._padded_tile_size(height, width, side)) <= free / 2
            )
        return next(fitting, _SIDES[-1])

    def _padded_tile_size(self, height: int, width: int, tile: int) -> list[int]:
        """Height and width of a tile with its border."""
        network = self.generator.network
        multiple = size_multiple_of(network)
        return [
            padded_tile_length(side, tile, self.reach, multiple) for side in acceptable_size((height, width), network)
        ]

    def _required_bytes(self, count: int, height: int, width: int) -> float:
        network = self.generator.network
        shape = (count, self.generator.source.channels, *acceptable_size((height, width), network))
        return (1 + MARGIN) * count_translation_bytes(network, shape)

"""A trained generator as a function from image to image, of any size."""

import itertools
import math
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gantoolkit.cost.step_cost import count_translation_bytes
from gantoolkit.data.images import to_mode
from gantoolkit.data.pixels import bands_of, fit_pixels, read_pixels
from gantoolkit.errors import DataError
from gantoolkit.inference.padding import acceptable_size, mirror_pad, mirrored_places
from gantoolkit.inference.tiling import measure_reach, seen_length, translate_in_tiles
from gantoolkit.recipes.building import size_multiple_of
from gantoolkit.runs import LoadedGenerator, load_generator
from gantoolkit.runtime.device import is_out_of_memory, select_device
from gantoolkit.runtime.memory import MARGIN, available_memory
from gantoolkit.runtime.memory_format import memory_format_of
from gantoolkit.runtime.precision import Precision, arithmetic
from gantoolkit.training import run_generator

__all__ = ["Tile", "Translator"]

Tile = int | Literal["auto"] | None
"""The most pixels that a side of what is translated at once has; `auto` takes tiles where the memory that is free asks for
them, and as large as it allows; None never does."""

SHARE_KEPT = 0.5
_ALWAYS_WHOLE = 1 << 20
"""Images of no more pixels are not asked whether they fit."""
_SCRATCH = 2 * 16 * 4
"""Bytes for each pixel of a tile: on CPUs convolutions pad narrow layers, their inputs and outputs, to 16 channels."""
_LIBRARIES = 200_000_000
"""Bytes that a process grows by when it convolves for the first time: 160 MB were measured."""
_SIDES = (4096, 2048, 1024, 512, 256)
"""Of tiles that `auto` chooses from."""


class Translator:
    """Translates images; each keeps its size.

    Gray and RGB of 8 bits are PIL images, `translator(image)`. Whatever a domain's files hold, these too, are arrays (H, W, C)
    of their values: `translator.translate_pixels([translator.read(path)])`; `generator.source` and `generator.target` say what
    they mean.

    Where the network cannot take a size, the image is continued by its mirror image, translated, and cropped back.

    Args:
        generator: A loaded generator; `Translator.load` reads one from a file.
        compile: Compile the network with torch.compile when the first image comes, for images of any size; that takes a
            minute or two, and pays for many images.
        tile: Whether a large image is translated in tiles. Instance norm then takes the statistics of the whole image, so
            that the result is that of the whole image too; see `gantoolkit.inference.tiling`.

    Raises:
        DataError: When `tile` is no number of pixels.
    """

    def __init__(self, generator: LoadedGenerator, *, compile: bool = False, tile: Tile = "auto") -> None:
        if isinstance(tile, int) and tile < 1:
            raise DataError(f"a tile of {tile} pixels has none; take one of 512, say")
        self.generator = generator
        self.tile: Tile = tile
        self.share_kept = SHARE_KEPT
        """Of the host's free memory, the most that tiles take to go on from where they stopped; less is slower."""
        self._chosen: dict[tuple[int, ...], int | None] = {}
        if compile:
            generator.network.compile(dynamic=True)
        tensors = itertools.chain(generator.network.parameters(), generator.network.buffers())
        self.device = next(tensors, torch.empty(0)).device

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        device: str | None = None,
        precision: Precision | Literal["auto"] = "fp32",
        compile: bool = False,
        tile: Tile = "auto",
    ) -> "Translator":
        """Read a generator's file, such as `runs/city/generators/A2B.safetensors`.

        Args:
            device: As `gantoolkit.runtime.device.select_device`.
            precision: What the network computes in; `auto` takes what is soonest done on the device.
            compile, tile: As above.

        Raises:
            CheckpointError: When it cannot be read.
        """
        return cls(load_generator(Path(path), select_device(device), precision), compile=compile, tile=tile)

    @property
    def direction(self) -> str:
        """`A2B` or `B2A`."""
        return self.generator.direction

    def __call__(self, image: Image.Image | np.ndarray | str | Path) -> Image.Image:
        """Translate one image, or the image in a file.

        Raises:
            DataError: When the file cannot be read, holds another kind of image, or its size cannot be translated; or when
                what it becomes is no gray or RGB of 8 bits.
        """
        return self.translate([self.read(image)])[0]

    def read(self, image: Image.Image | np.ndarray | str | Path) -> np.ndarray:
        """The values (H, W, C) of an image, with as many channels as the generator takes.

        Raises:
            DataError: When the file cannot be read, or holds another kind of image.
        """
        encoding = self.generator.source
        if isinstance(image, str | Path):
            return read_pixels(image, encoding)
        if isinstance(image, Image.Image) and encoding.is_picture:
            return np.atleast_3d(np.asarray(to_mode(image, encoding.channels)))
        if isinstance(image, Image.Image) and image.mode not in ("I", "F"):
            return fit_pixels("the image", *bands_of(image), encoding)
        values = np.asarray(image)
        return fit_pixels("the image", values, 8 * values.dtype.itemsize, encoding)

    def translate(self, images: Sequence[Image.Image | np.ndarray]) -> list[Image.Image]:
        """Translate images of the right channels; those of one size together, as one batch.

        Raises:
            DataError: As `__call__`.
        """
        target = self.generator.target
        if not target.is_picture:
            raise DataError(f"{self.direction} gives images of {target}, which are no pictures; take translate_pixels")
        made = self.translate_pixels([np.atleast_3d(np.asarray(image)) for image in images])
        return [Image.fromarray(values[..., 0] if target.channels == 1 else values) for values in made]

    def translate_pixels(self, pixels: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Translate values (H, W, C) as `read` returns them; those of one size together, as one batch.

        Raises:
            DataError: When a size cannot be translated.
        """
        source, target = self.generator.source, self.generator.target
        by_size: dict[tuple[int, ...], list[int]] = {}
        for place, values in enumerate(pixels):
            by_size.setdefault(values.shape[:2], []).append(place)
        translated: dict[int, np.ndarray] = {}
        for (height, width), places in by_size.items():
            if tile := self._choose_tile(1, height, width):
                translated |= {place: self._translate_large(pixels[place], tile) for place in places}
                continue
            batch = torch.stack([source.to_floats(pixels[place]) for place in places])
            made = self.translate_tensor(batch)
            translated |= {place: target.from_floats(image) for place, image in zip(places, made, strict=True)}
        return [translated[place] for place in range(len(pixels))]

    def translate_tensor(self, images: Tensor) -> Tensor:
        """Translate (N, C, H, W) in [−1, 1] to that, with the channels of the other domain, on the generator's device.

        A generator that draws random numbers when it translates (pix2pix) gets the same ones for every image.

        Raises:
            DataError: When the network cannot take the size, or there is not enough memory for it.
        """
        count, _, height, width = images.shape
        if count > 1 and self._choose_tile(count, height, width):
            return torch.cat([self.translate_tensor(image[None]) for image in images])
        tile = self._choose_tile(1, height, width)
        if tile is None:
            padded = mirror_pad(images.to(self.device), self.generator.network)
            return self._run(padded, (height, width))[..., :height, :width]
        made = torch.empty(count, self.generator.target.channels, height, width, device=self.device)
        rows, columns = mirrored_places((height, width), self.generator.network)

        def write(down: slice, right: slice, part: Tensor) -> None:
            made[..., down, right] = part

        self._translate_tiles(
            (height, width),
            lambda down, right: images[..., torch.from_numpy(rows[down])[:, None], torch.from_numpy(columns[right])],
            write,
            tile,
        )
        return made

    def _translate_large(self, pixels: np.ndarray, tile: int) -> np.ndarray:
        """Translate values (H, W, C) of which only tiles are ever floats."""
        source, target = self.generator.source, self.generator.target
        height, width = pixels.shape[:2]
        made = np.empty((height, width, target.channels), dtype=target.dtype)
        rows, columns = mirrored_places((height, width), self.generator.network)

        def write(down: slice, right: slice, part: Tensor) -> None:
            made[down, right] = target.from_floats(part[0])

        self._translate_tiles(
            (height, width),
            lambda down, right: source.to_floats(pixels[rows[down][:, None], columns[right]])[None],
            write,
            tile,
        )
        return made

    def _translate_tiles(
        self,
        size: tuple[int, int],
        read: Callable[[slice, slice], Tensor],
        write: Callable[[slice, slice, Tensor], None],
        tile: int,
    ) -> None:
        network, (height, width) = self.generator.network, size
        try:
            reach = self._reach
        except DataError as error:
            raise DataError(f"an image of {width}×{height} pixels: {error}") from error
        translate_in_tiles(
            network,
            lambda part: self._run(part.to(self.device), size),
            acceptable_size(size, network),
            read,
            lambda down, right, part: write(*_cut(down, right, part, size)),
            tile=tile,
            reach=reach,
            keep=self._may_keep(),
        )

    def _run(self, images: Tensor, size: tuple[int, int]) -> Tensor:
        """Translate what the network can take, a part of an image of that size."""
        precision = self.generator.precision
        images = images.contiguous(memory_format=memory_format_of(precision, self.device))
        try:
            with torch.inference_mode(), arithmetic(precision, try_algorithms=False):
                return run_generator(self.generator.network, images)
        except (RuntimeError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            cure = "; translate it in smaller tiles, of 256 pixels, say" if is_out_of_memory(error) else ""
            raise DataError(f"an image of {size[1]}×{size[0]} pixels cannot be translated: {reason}{cure}") from error

    @cached_property
    def _reach(self) -> int:
        return measure_reach(self.generator.network, self.generator.source.channels)

    def _choose_tile(self, count: int, height: int, width: int) -> int | None:
        """The side of the tiles in which images of a size are translated; None where they go whole."""
        if self.tile is None or isinstance(self.tile, int):
            return self.tile if self.tile and max(height, width) > self.tile else None
        if count * height * width <= _ALWAYS_WHOLE:
            return None
        if (count, height, width) not in self._chosen:
            self._chosen[count, height, width] = self._find_fitting(count, height, width)
        return self._chosen[count, height, width]

    def memory_bound(self, height: int, width: int) -> int:
        """The most bytes that translating one image of a size takes at once: its pixels and those of its translation, what goes
        through the network (a tile with its border, or all of it), and the features that may be kept from tile to tile.

        With `share_kept = 0` and in tiles, what is beside the pixels is at most that of a whole tile, however large the image.
        docs/tutorials/large-images.md has what a process took, beside it.
        """
        generator, tile = self.generator, self._choose_tile(1, height, width)
        if tile is None:
            floats = 4 * height * width * (generator.source.channels + generator.target.channels)
            return int(self._needs(1, height, width)) + floats
        seen = self._seen(height, width, tile)
        part = self._needs(1, *seen) + _SCRATCH * math.prod(seen) + _LIBRARIES
        pixels = height * width * (generator.source.bytes_per_pixel + generator.target.bytes_per_pixel)
        return int(part) + pixels + self._may_keep()

    def _may_keep(self) -> int:
        return int(self.share_kept * (available_memory(torch.device("cpu")) or 0))

    def _find_fitting(self, count: int, height: int, width: int) -> int | None:
        free = available_memory(self.device)
        if free is None or self._needs(count, height, width) <= free:
            return None
        fitting = (side for side in _SIDES if self._needs(1, *self._seen(height, width, side)) <= free)
        return next(fitting, _SIDES[-1])

    def _seen(self, height: int, width: int, tile: int) -> list[int]:
        """Height and width of what goes through the network at once."""
        network = self.generator.network
        multiple = size_multiple_of(network)
        return [seen_length(side, tile, self._reach, multiple) for side in acceptable_size((height, width), network)]

    def _needs(self, count: int, height: int, width: int) -> float:
        shape = (
            count,
            self.generator.source.channels,
            *(len(places) for places in mirrored_places((height, width), self.generator.network)),
        )
        return (1 + MARGIN) * count_translation_bytes(self.generator.network, shape)


def _cut(down: slice, right: slice, part: Tensor, size: tuple[int, int]) -> tuple[slice, slice, Tensor]:
    """What of a part lies in an image of that size."""
    rows, columns = (
        slice(min(side.start, end), min(side.stop, end)) for side, end in zip((down, right), size, strict=True)
    )
    return rows, columns, part[..., : rows.stop - rows.start, : columns.stop - columns.start]

"""`Translator`: a trained generator as a function from image to image, of any size."""

import functools
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from gantoolkit.data.inputs import ImageInput, decode_input
from gantoolkit.errors import DataError, first_line
from gantoolkit.files.paths import user_path
from gantoolkit.inference.captured import CapturedFunction
from gantoolkit.inference.feature_cache import FeatureCache
from gantoolkit.inference.memory import Tile, TranslationMemory
from gantoolkit.inference.padding import acceptable_size, mirror_pad, mirrored_indices
from gantoolkit.inference.tiling import translate_in_tiles, uses_image_statistics
from gantoolkit.plugins import NetworkTraits, read_traits
from gantoolkit.runs import LoadedGenerator, load_generator
from gantoolkit.runtime.device import is_out_of_memory, select_device
from gantoolkit.runtime.graphs import GraphRecorder
from gantoolkit.runtime.memory_format import memory_format_of
from gantoolkit.runtime.precision import Precision, backend_flags
from gantoolkit.runtime.threads import warn_of_spinning_threads
from gantoolkit.training import run_generator

__all__ = ["Translator"]

_CAPTURED_PIXELS = 1 << 20
"""CUDA graphs replay batches of up to this many pixels: for larger ones, launches do not matter."""


class Translator:
    """Translates images of any size; each translation has the size of its image.

    8-bit gray and RGB images are PIL images: `translator(image)`. Images of any encoding can be translated as arrays (H, W, C)
    of their values: `translator.translate_pixels([translator.read(path)])`; `generator.source` and `generator.target` describe
    the values.

    An image whose size the network does not accept is padded by reflection, translated, and cropped.

    Args:
        generator: A loaded generator; `Translator.load` reads one from a file.
        compile: Compile the network with torch.compile at the first image, for images of any size. This takes a minute or two,
            so it pays off only for many images.
        capture: On CUDA, replay the translation of batches of up to a megapixel in all as a CUDA graph, from the third call of
            a shape on. The result is the same.
        tile: Whether to translate large images in tiles. Instance norm still uses the statistics of the whole image, so the
            result is the same; see `gantoolkit.inference.tiling`.

    Raises:
        DataError: When `tile` is less than 1.
    """

    def __init__(
        self, generator: LoadedGenerator, *, compile: bool = False, capture: bool = True, tile: Tile = "auto"
    ) -> None:
        if isinstance(tile, int) and tile < 1:
            raise DataError(f"tile={tile}: must be at least 1 pixel; use 512, for example")
        self.generator = generator
        if compile:
            generator.network.compile(dynamic=True)
        tensors = itertools.chain(generator.network.parameters(), generator.network.buffers())
        self.device = next(tensors, torch.empty(0)).device
        self.memory = TranslationMemory(generator, self.device, tile)
        if self.device.type == "cpu":
            warn_of_spinning_threads(generator.network)
        memory_format = memory_format_of(generator.precision, self.device)
        self._network = functools.partial(_translate, generator.network, memory_format)
        stochastic = read_traits(generator.network, NetworkTraits).stochastic
        self._captured: CapturedFunction | None = None
        if capture and self.device.type == "cuda" and not stochastic:
            self._captured = CapturedFunction(self._network, GraphRecorder(self.device))

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        device: str | None = None,
        precision: Precision | Literal["auto"] = "fp32",
        compile: bool = False,
        capture: bool = True,
        tile: Tile = "auto",
    ) -> "Translator":
        """Read a generator file, such as `runs/city/generators/A2B.safetensors`.

        Args:
            device: As in `gantoolkit.runtime.device.select_device`.
            precision: The precision of the computation; `auto` is the fastest on the device.
            compile, capture, tile: As in `Translator`.

        Raises:
            CheckpointError: When the file cannot be read.
        """
        generator = load_generator(user_path(path), select_device(device), precision)
        return cls(generator, compile=compile, capture=capture, tile=tile)

    @property
    def direction(self) -> str:
        """`A2B` or `B2A`."""
        return self.generator.direction

    @property
    def capture_problem(self) -> str:
        """Why CUDA could not capture the network, so that it runs without graphs; empty if it could, or has not tried."""
        return self._captured.problem if self._captured else ""

    def __call__(self, image: ImageInput) -> Image.Image:
        """Translate one image: a path, the content of a file, a binary stream, a PIL image, or an array of values.

        Raises:
            DataError: When the file cannot be read, contains another kind of image, or its size cannot be translated; or when
                the target domain is not 8-bit gray or RGB.
        """
        return self.translate([image])[0]

    def read(self, image: ImageInput, *, page: int = 0, max_pixels: int | None = None) -> np.ndarray:
        """Read the values (H, W, C) of an image, with the number of channels that the generator expects.

        Args:
            image: The image, as in `__call__`. A PIL image is turned by its EXIF orientation, and its colors are converted by
                its profile, like those of a file.
            page: The page or frame of a file.
            max_pixels: The largest number of pixels of a file; `gantoolkit.data.images.MAX_PIXELS` by default.

        Raises:
            DataError: When the file cannot be read, or contains another kind of image.
        """
        return decode_input(image, self.generator.source, page=page, max_pixels=max_pixels).pixels

    def translate(self, images: Sequence[ImageInput]) -> list[Image.Image]:
        """Translate images, as in `__call__`; those of one size form a batch.

        Raises:
            DataError: As in `__call__`.
        """
        target = self.generator.target
        if not target.is_picture:
            raise DataError(f"{self.direction} produces images of {target}, not 8-bit pictures; use translate_pixels")
        translations = self.translate_pixels([self.read(image) for image in images])
        return [Image.fromarray(values[..., 0] if target.channels == 1 else values) for values in translations]

    def translate_pixels(self, pixels: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Translate values (H, W, C), as `read` returns them; those of one size form a batch.

        Raises:
            DataError: When a size cannot be translated, or a large image needs more than the free memory.
        """
        source, target = self.generator.source, self.generator.target
        indices_by_size: dict[tuple[int, ...], list[int]] = {}
        for index, values in enumerate(pixels):
            indices_by_size.setdefault(values.shape[:2], []).append(index)
        translations: dict[int, np.ndarray] = {}
        for (height, width), indices in indices_by_size.items():
            self.memory.check(height, width)
            if tile := self.memory.choose_tile(1, height, width):
                translations |= {index: self._translate_large(pixels[index], tile) for index in indices}
                continue
            batch = torch.stack([source.to_floats(pixels[index]) for index in indices])
            images = self.translate_tensor(batch).cpu()  # one copy for the batch
            translations |= {index: target.from_floats(image) for index, image in zip(indices, images, strict=True)}
        return [translations[index] for index in range(len(pixels))]

    def translate_tensor(self, images: Tensor) -> Tensor:
        """Translate (N, C, H, W) in [−1, 1] to the other domain's channels, in the same range, on the generator's device.

        A generator that draws random numbers when it translates (pix2pix) draws the same ones for every image.

        Raises:
            DataError: When the network does not accept the size, or there is not enough memory.
        """
        count, _, height, width = images.shape
        if count > 1 and self.memory.choose_tile(count, height, width):
            return torch.cat([self.translate_tensor(image[None]) for image in images])
        tile = self.memory.choose_tile(1, height, width)
        if tile is None:
            padded = mirror_pad(images.to(self.device), self.generator.network)
            return self._run(padded, (height, width))[..., :height, :width]
        translation = torch.empty(count, self.generator.target.channels, height, width, device=self.device)
        rows, columns = (
            torch.from_numpy(indices).to(images.device)
            for indices in mirrored_indices((height, width), self.generator.network)
        )

        def write(down: slice, right: slice, part: Tensor) -> None:
            translation[..., down, right] = part

        self._translate_tiles(
            (height, width),
            lambda down, right: images[..., rows[down][:, None], columns[right]].to(self.device),
            write,
            tile,
        )
        return translation

    def _translate_large(self, pixels: np.ndarray, tile: int) -> np.ndarray:
        """Translate values (H, W, C) in tiles; only one tile at a time is converted to floats."""
        source, target = self.generator.source, self.generator.target
        height, width = pixels.shape[:2]
        translation = np.empty((height, width, target.channels), dtype=target.dtype)
        rows, columns = mirrored_indices((height, width), self.generator.network)

        def write(down: slice, right: slice, part: Tensor) -> None:
            translation[down, right] = target.from_floats(part[0])

        self._translate_tiles(
            (height, width),
            lambda down, right: source.to_floats(pixels[rows[down][:, None], columns[right]])[None].to(self.device),
            write,
            tile,
        )
        return translation

    def _translate_tiles(
        self,
        size: tuple[int, int],
        read: Callable[[slice, slice], Tensor],
        write: Callable[[slice, slice, Tensor], None],
        tile: int,
    ) -> None:
        network, (height, width) = self.generator.network, size
        may_replay = not uses_image_statistics(network)  # otherwise each pass runs other layers
        try:
            reach = self.memory.reach
        except DataError as error:
            raise DataError(f"an image of {width}×{height} pixels: {error}") from error
        translate_in_tiles(
            network,
            lambda part: self._run(part, size, may_replay=may_replay),
            acceptable_size(size, network),
            read,
            lambda down, right, part: write(*_crop(down, right, part, size)),
            tile=tile,
            reach=reach,
            cache=FeatureCache(*self.memory.cache_bytes(size, tile)),
        )

    def _run(self, images: Tensor, size: tuple[int, int], *, may_replay: bool = True) -> Tensor:
        """Translate padded images or a tile; `size` is that of the image, for messages."""
        is_small = len(images) * images.shape[-2] * images.shape[-1] <= _CAPTURED_PIXELS
        run = self._captured if self._captured and may_replay and is_small else self._network
        try:
            with torch.inference_mode(), backend_flags(self.generator.precision, try_algorithms=False):
                return run(images)
        except (RuntimeError, ValueError) as error:
            hint = "; use smaller tiles, of 256 pixels, for example" if is_out_of_memory(error) else ""
            raise DataError(
                f"an image of {size[1]}×{size[0]} pixels cannot be translated: {first_line(error)}{hint}"
            ) from error


def _translate(network: nn.Module, memory_format: torch.memory_format, images: Tensor) -> Tensor:
    return run_generator(network, images.contiguous(memory_format=memory_format))


def _crop(down: slice, right: slice, part: Tensor, size: tuple[int, int]) -> tuple[slice, slice, Tensor]:
    """Crop a part of a padded image to what lies in an image of that size."""
    rows, columns = (
        slice(min(side.start, end), min(side.stop, end)) for side, end in zip((down, right), size, strict=True)
    )
    return rows, columns, part[..., : rows.stop - rows.start, : columns.stop - columns.start]

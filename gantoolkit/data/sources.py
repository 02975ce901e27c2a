"""Sources of a step's images: decoded from their files each time, or read from a cache."""

import json
import warnings
from collections.abc import Sequence
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from gantoolkit.data.augmentation import Window, crop_pixels
from gantoolkit.data.cache import CACHE_VARIABLE, PixelFile, find_cache_folder
from gantoolkit.data.device_cache import DeviceSource
from gantoolkit.data.folders import Dataset
from gantoolkit.data.notes import Note
from gantoolkit.data.reader import ImageReader, LoadedImage
from gantoolkit.errors import DataError
from gantoolkit.recipes.settings import DataSettings

__all__ = ["CacheMode", "HostSource", "Source", "open_source"]

CacheMode = Literal["auto", "device", "file", "none"]
"""Where decoded images are cached: `device`, in the memory of the device; `file`, in a file in the user's cache folder; `none`,
nowhere; `auto`, on a CUDA device if they take at most a quarter of its free memory, otherwise in a file."""


class Source(Protocol):
    """Loads a batch in three steps: `load` and `crop` may run in a worker process, `collate` joins their results.

    An image is loaded before its crop is chosen, because the crops of a pair depend on the sizes of both images.

    Args:
        on_device: Whether batches are created on the device, in the main process.
        failure: Why the cache no longer works; empty if it does.
    """

    on_device: bool

    @property
    def failure(self) -> str: ...

    def load(self, domain: str, index: int) -> LoadedImage:
        """Load a resized image, in the form that `crop` accepts.

        Raises:
            DataError: When the image cannot be read.
        """
        ...

    def crop(self, domain: str, image: LoadedImage, window: Window) -> Any:
        """Crop an image, in the form that `collate` accepts."""
        ...

    def collate(self, domain: str, crops: Sequence[Any]) -> Tensor:
        """Batch crops as (N, C, crop_size, crop_size) in [−1, 1]."""
        ...


class HostSource:
    """Images that are cropped and flipped in the process that reads them.

    Args:
        reader: Reads the images.
        cache: Stores the decoded pixels.
    """

    on_device = False

    def __init__(self, reader: ImageReader, cache: PixelFile | None = None) -> None:
        self.reader = reader
        self.cache = cache

    @property
    def failure(self) -> str:
        return "" if self.cache is None else self.cache.failure

    def load(self, domain: str, index: int) -> LoadedImage:
        if self.cache is None:
            return self.reader.read(domain, index)
        cache_index = index if domain == "A" else len(self.reader.files("A")) + index
        encoding = self.reader.encoding(domain)
        entry = self.cache.read(cache_index, encoding.channels, encoding.dtype)
        if entry is not None:
            pixels, text = entry
            return LoadedImage((pixels.shape[1], pixels.shape[0]), pixels, _parse_notes(text))
        image = self.reader.read(domain, index)
        self.cache.write(cache_index, image.content, _format_notes(image.notes))
        return image

    def crop(self, domain: str, image: LoadedImage, window: Window) -> Tensor:
        return crop_pixels(image.content, window, self.reader.settings, self.reader.encoding(domain))

    def collate(self, domain: str, crops: Sequence[Tensor]) -> Tensor:
        return torch.stack(list(crops))


def _format_notes(notes: Sequence[Note]) -> bytes:
    return json.dumps([[note.text, note.passed_over] for note in notes]).encode() if notes else b""


def _parse_notes(text: bytes) -> tuple[Note, ...]:
    return tuple(Note(*fields) for fields in json.loads(text)) if text else ()


def open_source(dataset: Dataset, settings: DataSettings, cache: CacheMode, device: torch.device) -> Source:
    """Open a source for a run on `device`. If the cache is not available, warn and fall back to a simpler one."""
    reader = ImageReader(dataset, settings)
    if cache == "none":
        return HostSource(reader)
    if cache == "device" or (cache == "auto" and device.type == "cuda"):
        try:
            return DeviceSource(reader, device)
        except DataError as error:
            if cache == "device":
                warnings.warn(f"{error}; they are cached in a file instead", stacklevel=2)
    try:
        return HostSource(reader, _open_cache_file(reader))
    except DataError as error:
        warnings.warn(f"{error}; images are decoded each time", stacklevel=2)
    except OSError as error:
        reason = error.strerror or error
        warnings.warn(
            f"{error.filename or find_cache_folder()}: decoded images cannot be cached ({reason}); set {CACHE_VARIABLE} to a "
            "folder that can be written; images are decoded each time",
            stacklevel=2,
        )
    return HostSource(reader)


def _open_cache_file(reader: ImageReader) -> PixelFile:
    def max_sizes() -> list[int]:
        return [size * reader.encoding(domain).bytes_per_pixel for domain in "AB" for size in reader.sizes[domain]]

    count = sum(len(reader.files(domain)) for domain in "AB")
    return PixelFile(find_cache_folder(), reader.digest(), count, max_sizes)

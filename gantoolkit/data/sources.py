"""Where the images of a step come from: decoded from their files each time, or kept from the first time on."""

import random
import warnings
from collections.abc import Sequence
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from gantoolkit.data.augmentation import augment
from gantoolkit.data.cache import PixelFile, find_cache_folder
from gantoolkit.data.device_cache import DeviceSource
from gantoolkit.data.folders import Dataset
from gantoolkit.data.reader import ImageReader
from gantoolkit.errors import DataError
from gantoolkit.recipes.settings import DataSettings

__all__ = ["CacheMode", "HostSource", "Source", "open_source"]

CacheMode = Literal["auto", "device", "file", "none"]
"""Where decoded images are kept: `device`, in the memory of the device; `file`, in a file in the user's cache; `none`, nowhere;
`auto`, on a CUDA device if they take at most a quarter of its free memory, else in a file."""


class Source(Protocol):
    """Gives a batch in two steps, so that the first can be left to other processes.

    Args:
        on_device: Whether batches come about on the device, in this process.
        failure: What has gone wrong with a cache; empty if nothing has.
    """

    on_device: bool

    @property
    def failure(self) -> str: ...

    def take(self, domain: str, index: int, draws: random.Random) -> Any:
        """One image, cropped and mirrored as is drawn, in a form that `join` knows.

        Raises:
            DataError: When it cannot be read, or is smaller than the crop.
        """
        ...

    def join(self, domain: str, taken: Sequence[Any]) -> Tensor:
        """Images that were taken, as a batch (N, C, crop_size, crop_size) in [−1, 1]."""
        ...


class HostSource:
    """Images that are cropped and mirrored in the processes that read them.

    Args:
        reader: Reads them.
        kept: Where their pixels are kept from then on.
    """

    on_device = False

    def __init__(self, reader: ImageReader, kept: PixelFile | None = None) -> None:
        self.reader = reader
        self.kept = kept

    @property
    def failure(self) -> str:
        return "" if self.kept is None else self.kept.failure

    def take(self, domain: str, index: int, draws: random.Random) -> Tensor:
        return augment(self._read(domain, index), self.reader.settings, self.reader.encoding(domain), draws)

    def join(self, domain: str, taken: Sequence[Tensor]) -> Tensor:
        return torch.stack(list(taken))

    def _read(self, domain: str, index: int) -> np.ndarray:
        if self.kept is None:
            return self.reader.read(domain, index)
        number = index if domain == "A" else len(self.reader.files("A")) + index
        encoding = self.reader.encoding(domain)
        pixels = self.kept.recall(number, encoding.channels, encoding.dtype)
        if pixels is None:
            pixels = self.reader.read(domain, index)
            self.kept.keep(number, pixels)
        return pixels


def open_source(dataset: Dataset, settings: DataSettings, cache: CacheMode, device: torch.device) -> Source:
    """A source for a run on `device`; where a cache cannot be had, one sentence of warning says what is done instead."""
    reader = ImageReader(dataset, settings)
    if cache == "none":
        return HostSource(reader)
    if cache == "device" or (cache == "auto" and device.type == "cuda"):
        try:
            return DeviceSource(reader, device)
        except DataError as error:
            if cache == "device":
                warnings.warn(f"{error}; they are kept in a file", stacklevel=2)
    try:
        return HostSource(reader, _open_file(reader))
    except (DataError, OSError) as error:
        warnings.warn(f"{error}; images are decoded each time", stacklevel=2)
        return HostSource(reader)


def _open_file(reader: ImageReader) -> PixelFile:
    def measure() -> list[int]:
        return [size * reader.encoding(domain).bytes_per_pixel for domain in "AB" for size in reader.sizes[domain]]

    count = sum(len(reader.files(domain)) for domain in "AB")
    return PixelFile(find_cache_folder(), reader.digest(), count, measure)

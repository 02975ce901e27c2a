"""Decoded images cached on the device: one gather there makes a batch, whatever the sizes, crops and flips of its images."""

import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from gantoolkit.data.augmentation import Window
from gantoolkit.data.encoding import Encoding
from gantoolkit.data.reader import ImageReader, LoadedImage
from gantoolkit.errors import DataError
from gantoolkit.runtime.memory import available_memory

__all__ = ["SHARE_OF_MEMORY", "DeviceSource"]

SHARE_OF_MEMORY = 0.25
"""The largest share of the device's free memory that the images may take."""

_Crop = tuple[int, int, int]
"""A crop in the flat pixels of a domain: the index of its first pixel, the stride to the next row and to the next column."""


class DeviceSource:
    """All images of a data set, read and resized once and kept in the memory of a device.

    Args:
        reader: Reads the images, with as many threads as torch uses.
        device: Holds the images: 1 byte for an 8-bit value, 2 for a 16-bit value, 4 for any other.

    Raises:
        DataError: When the images would take more than `SHARE_OF_MEMORY`.
    """

    on_device = True
    failure = ""

    def __init__(self, reader: ImageReader, device: torch.device) -> None:
        self.settings = reader.settings
        self.device = device
        encodings = {domain: reader.encoding(domain) for domain in "AB"}
        size = sum(sum(reader.sizes[domain]) * encodings[domain].bytes_per_pixel for domain in "AB")
        free = available_memory(device)
        limit = None if free is None else free * SHARE_OF_MEMORY  # not every system tells how much is free
        if limit is not None and size > limit:
            raise DataError(
                f"{device}: the decoded images would take {size / 1e6:,.0f} MB, but only {limit / 1e6:,.0f} MB of its free "
                "memory may be used for them"
            )
        self._starts = {domain: list(accumulate(reader.sizes[domain], initial=0)) for domain in "AB"}
        self._pixels = {
            domain: torch.empty(
                self._starts[domain][-1], encoding.channels, dtype=_storage_dtype(encoding), device=device
            )
            for domain, encoding in encodings.items()
        }
        self._images: dict[tuple[str, int], LoadedImage] = {}
        self._bad: dict[tuple[str, int], str] = {}
        # A table, not arithmetic: when dividing by a constant, a GPU and a CPU differ in the last bit.
        self._levels = {
            domain: encoding.scale(torch.arange(1 << encoding.bits)).to(device)
            for domain, encoding in encodings.items()
            if encoding.bits
        }
        self._side = torch.arange(self.settings.crop_size, device=device)
        self._load(reader)

    def load(self, domain: str, index: int) -> LoadedImage:
        if (domain, index) in self._bad:
            raise DataError(self._bad[domain, index])
        return self._images[domain, index]

    def crop(self, domain: str, image: LoadedImage, window: Window) -> _Crop:
        width, _ = image.size
        first = image.content + window.top * width + window.left
        return (first + self.settings.crop_size - 1, width, -1) if window.flipped else (first, width, 1)

    def collate(self, domain: str, crops: Sequence[_Crop]) -> Tensor:
        table = torch.tensor(crops)
        if self.device.type == "cuda":
            table = table.pin_memory()
        first, row_stride, column_stride = table.to(self.device, non_blocking=True).T[..., None, None]
        indices = first + row_stride * self._side[:, None] + column_stride * self._side
        # Contiguous, as `torch.stack` returns it: the memory format may decide which convolution algorithm is used.
        pixels = self._pixels[domain][indices].permute(0, 3, 1, 2).contiguous()
        return self._levels[domain][pixels.int() & 0xFFFF] if domain in self._levels else pixels

    def _load(self, reader: ImageReader) -> None:
        def load(domain: str, index: int) -> None:
            try:
                image = reader.read(domain, index)
            except DataError as error:
                self._bad[domain, index] = str(error)
                return
            pixels = image.content
            height, width, channels = pixels.shape
            start, stop = self._starts[domain][index : index + 2]
            if height * width > stop - start:
                raise DataError(f"{reader.files(domain)[index]}: is {width}×{height}, larger than its header says")
            if pixels.dtype == np.float32:
                pixels = reader.encoding(domain).scale(torch.from_numpy(pixels)).numpy()
            if pixels.dtype == np.uint16:
                pixels = pixels.view(np.int16)  # torch does not index tensors of uint16
            flat = torch.from_numpy(np.array(pixels).reshape(-1, channels))
            self._pixels[domain][start : start + height * width] = flat.to(self.device)
            self._images[domain, index] = replace(image, content=start)

        images = [(domain, index) for domain in "AB" for index in range(len(reader.files(domain)))]
        # Reading an image changes the warning filters and restores them; threads would restore each other's.
        with warnings.catch_warnings(), ThreadPoolExecutor(torch.get_num_threads()) as threads:
            for _ in threads.map(load, *zip(*images, strict=True)):
                pass


def _storage_dtype(encoding: Encoding) -> torch.dtype:
    return {8: torch.uint8, 16: torch.int16, None: torch.float32}[encoding.bits]

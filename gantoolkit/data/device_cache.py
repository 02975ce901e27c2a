"""Decoded images that lie on the device: a batch is one look-up there, whatever its images' sizes, crops and mirroring."""

import random
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from gantoolkit.data.augmentation import draw_window
from gantoolkit.data.encoding import Encoding
from gantoolkit.data.reader import ImageReader
from gantoolkit.errors import DataError
from gantoolkit.runtime.memory import available_memory

__all__ = ["SHARE_OF_MEMORY", "DeviceSource"]

SHARE_OF_MEMORY = 0.25
"""Of the device's free memory, the most that images may take."""

_Cut = tuple[int, int, int]
"""A crop in a domain's row of pixels: the first one, how far the one below it is, and how far the one to its right."""


class DeviceSource:
    """All images of a data set, read and resized once, in the memory of a device.

    Args:
        reader: Reads them, in as many threads as torch computes with.
        device: Where they lie, a level of 8 bits in 1 byte, one of 16 in 2, and any other value in 4.

    Raises:
        DataError: When they would take more than their share of the memory.
    """

    on_device = True
    failure = ""

    def __init__(self, reader: ImageReader, device: torch.device) -> None:
        self.settings = reader.settings
        self.device = device
        encodings = {domain: reader.encoding(domain) for domain in "AB"}
        wanted = sum(sum(reader.sizes[domain]) * encodings[domain].bytes_per_pixel for domain in "AB")
        free = available_memory(device)
        room = 0 if free is None else int(free * SHARE_OF_MEMORY)
        if wanted > room:
            raise DataError(
                f"{device}: the decoded images would take {wanted / 1e6:,.0f} MB, and of its free memory "
                f"{room / 1e6:,.0f} MB are for them"
            )
        self._starts = {domain: list(accumulate(reader.sizes[domain], initial=0)) for domain in "AB"}
        self._pixels = {
            domain: torch.empty(self._starts[domain][-1], encoding.channels, dtype=_kept_as(encoding), device=device)
            for domain, encoding in encodings.items()
        }
        self._shapes: dict[tuple[str, int], tuple[int, int]] = {}
        self._bad: dict[tuple[str, int], str] = {}
        # Looked up, not computed: a GPU divides by a constant with another last bit than a CPU.
        self._levels = {
            domain: encoding.scale(torch.arange(1 << encoding.bits)).to(device)
            for domain, encoding in encodings.items()
            if encoding.bits
        }
        self._side = torch.arange(self.settings.crop_size, device=device)
        self._load(reader)

    def take(self, domain: str, index: int, draws: random.Random) -> _Cut:
        if (domain, index) in self._bad:
            raise DataError(self._bad[domain, index])
        width, height = self._shapes[domain, index]
        window = draw_window((width, height), self.settings, draws)
        first = self._starts[domain][index] + window.top * width + window.left
        return (first + self.settings.crop_size - 1, width, -1) if window.mirrored else (first, width, 1)

    def join(self, domain: str, taken: Sequence[_Cut]) -> Tensor:
        cuts = torch.tensor(taken)
        if self.device.type == "cuda":
            cuts = cuts.pin_memory()
        first, down, right = cuts.to(self.device, non_blocking=True).T[..., None, None]
        places = first + down * self._side[:, None] + right * self._side
        # Contiguous, as a stack of images is: how a batch lies in memory may decide by which algorithm it is convolved.
        pixels = self._pixels[domain][places].permute(0, 3, 1, 2).contiguous()
        return self._levels[domain][pixels.int() & 0xFFFF] if domain in self._levels else pixels

    def _load(self, reader: ImageReader) -> None:
        def load(domain: str, index: int) -> None:
            try:
                pixels = reader.read(domain, index)
            except DataError as error:
                self._bad[domain, index] = str(error)
                return
            height, width, channels = pixels.shape
            start, stop = self._starts[domain][index : index + 2]
            if height * width > stop - start:
                raise DataError(f"{reader.files(domain)[index]}: is {width}×{height}, larger than its header says")
            kept = (
                reader.encoding(domain).scale(torch.from_numpy(pixels)).numpy()
                if pixels.dtype == np.float32
                else pixels
            )
            kept = kept.view(np.int16) if kept.dtype == np.uint16 else kept  # torch looks up no unsigned ones
            flat = torch.from_numpy(np.array(kept).reshape(-1, channels))
            self._pixels[domain][start : start + height * width] = flat.to(self.device)
            self._shapes[domain, index] = width, height

        numbers = [(domain, index) for domain in "AB" for index in range(len(reader.files(domain)))]
        # Reading an image sets filters for warnings and puts back those that it found; threads find each other's.
        with warnings.catch_warnings(), ThreadPoolExecutor(torch.get_num_threads()) as threads:
            for _ in threads.map(load, *zip(*numbers, strict=True)):
                pass


def _kept_as(encoding: Encoding) -> torch.dtype:
    return {8: torch.uint8, 16: torch.int16, None: torch.float32}[encoding.bits]

"""Images as crops are taken from them: what of reading is the same each time, and what it depends on."""

import contextlib
import hashlib
import json
from functools import cached_property

import numpy as np
import PIL

from gantoolkit.data.augmentation import find_size, resize
from gantoolkit.data.encoding import Encoding, encoding_of
from gantoolkit.data.folders import Dataset
from gantoolkit.data.images import ImageFile
from gantoolkit.data.pixels import read_pixel_size, read_pixels
from gantoolkit.errors import DataError
from gantoolkit.recipes.settings import DataSettings

__all__ = ["ImageReader"]

_FORMAT = 1
"""To be raised when `read_pixels` or `resize` give other pixels than they did."""


class ImageReader:
    """Reads and resizes the images of a data set.

    Args:
        dataset: Files of both domains.
        settings: How they are read.
    """

    def __init__(self, dataset: Dataset, settings: DataSettings) -> None:
        self.dataset = dataset
        self.settings = settings
        self._found = {domain: [_look_at(file) for file in self.files(domain)] for domain in "AB"}

    def files(self, domain: str) -> tuple[ImageFile, ...]:
        """The files of domain A or B."""
        return self.dataset.files(domain)

    def encoding(self, domain: str) -> Encoding:
        """How the images of domain A or B are kept in files."""
        return encoding_of(self.settings, domain)

    def read(self, domain: str, index: int) -> np.ndarray:
        """An image as crops are taken from it: (H, W, C) of its encoding's dtype.

        Raises:
            DataError: When it cannot be read, or its file is another one than when this reader was made. What a run learns
                from, and what a cache keeps under the data set's digest, is what lay there then.
        """
        file = self.files(domain)[index]
        encoding = self.encoding(domain)
        pixels = read_pixels(file, encoding)
        if _look_at(file) != self._found[domain][index]:  # after reading: it may have been replaced meanwhile
            raise DataError(
                f"{file.path}: was replaced while the run trained; continue the run to learn from what is there now"
            )
        return resize(pixels, self.settings, encoding)

    @cached_property
    def sizes(self) -> dict[str, list[int]]:
        """The most pixels that each image may have, resized, by what its header says; 0 where that cannot be read."""
        return {domain: [self._measure(domain, file) for file in self.files(domain)] for domain in "AB"}

    def digest(self) -> bytes:
        """SHA-256 of all that decides the pixels."""
        settings = self.settings
        load_size = None if settings.resize == "none" else settings.load_size
        digest = hashlib.sha256(repr((_FORMAT, PIL.__version__, settings.resize, load_size)).encode())
        for domain in "AB":
            for file, age in zip(self.files(domain), self._found[domain], strict=True):
                encoding = self.encoding(domain)
                about = [str(file.path.absolute()), age, file.half or "", encoding.channels, encoding.range]
                digest.update(json.dumps(about).encode())
        return digest.digest()

    def _measure(self, domain: str, file: ImageFile) -> int:
        side = self.settings.load_size
        if self.settings.resize == "square":
            return side * side
        try:
            width, height = read_pixel_size(file.path, self.encoding(domain))
        except DataError:
            return 0
        # The header says it before EXIF may turn the image, which halves can feel.
        shapes = [(width // 2, height), (width, height // 2)] if file.half else [(width, height)]
        resized = [find_size(shape, self.settings, side) for shape in shapes if min(shape)]
        return max((width * height for width, height in resized), default=0)


def _look_at(file: ImageFile) -> tuple[int, int] | None:
    """Size and time of a file's last change; None where there is none: it will be named as one that cannot be read."""
    with contextlib.suppress(OSError):
        found = file.path.stat()
        return found.st_size, found.st_mtime_ns
    return None

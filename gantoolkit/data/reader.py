"""Images as crops are taken from them: what of reading is the same each time, and what it depends on."""

import contextlib
import hashlib
import json
from functools import cached_property

import numpy as np
import PIL

from gantoolkit.data.augmentation import find_size, resize
from gantoolkit.data.folders import Dataset
from gantoolkit.data.images import Half, ImageFile, read_image, read_size
from gantoolkit.errors import DataError
from gantoolkit.settings import DataSettings

__all__ = ["ImageReader"]

_FORMAT = 1
"""To be raised when `read_image` or `resize` give other pixels than they did."""


class ImageReader:
    """Reads and resizes the images of a data set.

    Args:
        dataset: Files of both domains.
        settings: How they are read.
    """

    def __init__(self, dataset: Dataset, settings: DataSettings) -> None:
        self.dataset = dataset
        self.settings = settings

    def files(self, domain: str) -> tuple[ImageFile, ...]:
        """The files of domain A or B."""
        return self.dataset.A if domain == "A" else self.dataset.B

    def channels(self, domain: str) -> int:
        """How many channels images of domain A or B have."""
        return self.settings.channels_A if domain == "A" else self.settings.channels_B

    def read(self, domain: str, index: int) -> np.ndarray:
        """An image as crops are taken from it: bytes (H, W, C).

        Raises:
            DataError: When it cannot be read.
        """
        image = read_image(self.files(domain)[index], self.channels(domain))
        return np.atleast_3d(np.asarray(resize(image, self.settings)))

    @cached_property
    def sizes(self) -> dict[str, list[int]]:
        """The most pixels that each image may have, resized, by what its header says; 0 where that cannot be read."""
        return {domain: [self._measure(file) for file in self.files(domain)] for domain in "AB"}

    def digest(self) -> bytes:
        """SHA-256 of all that decides the pixels."""
        settings = self.settings
        load_size = None if settings.resize == "none" else settings.load_size
        digest = hashlib.sha256(repr((_FORMAT, PIL.__version__, settings.resize, load_size)).encode())
        for domain in "AB":
            for file in self.files(domain):
                path, side = (file.path, file.side) if isinstance(file, Half) else (file, "")
                age = None
                with contextlib.suppress(OSError):  # it will be named as one that cannot be read
                    found = path.stat()
                    age = (found.st_size, found.st_mtime_ns)
                digest.update(json.dumps([str(path.absolute()), age, side, self.channels(domain)]).encode())
        return digest.digest()

    def _measure(self, file: ImageFile) -> int:
        side = self.settings.load_size
        if self.settings.resize == "square":
            return side * side
        try:
            width, height = read_size(file.path if isinstance(file, Half) else file)
        except DataError:
            return 0
        # The header says it before EXIF may turn the image, which halves can feel.
        shapes = [(width // 2, height), (width, height // 2)] if isinstance(file, Half) else [(width, height)]
        resized = [find_size(shape, self.settings, side) for shape in shapes if min(shape)]
        return max((width * height for width, height in resized), default=0)

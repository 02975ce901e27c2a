"""Reading and resizing images: the deterministic part of loading, and the digest of everything that it depends on."""

import contextlib
import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import PIL

from gantoolkit.data.augmentation import compute_size, resize
from gantoolkit.data.encoding import Encoding, encoding_of
from gantoolkit.data.folders import Dataset
from gantoolkit.data.images import ImageFile
from gantoolkit.data.notes import Note
from gantoolkit.data.pixels import read_decoded_image, read_pixel_size
from gantoolkit.errors import DataError
from gantoolkit.recipes.settings import DataSettings

__all__ = ["ImageReader", "LoadedImage"]

_FORMAT = 2
"""Version of the pixels. Increase it when `read_decoded_image` or `resize` return different pixels than before."""


@dataclass(frozen=True)
class LoadedImage:
    """An image that was read and resized.

    Args:
        size: Its width and height.
        content: Its pixels, in the form of the source that loaded it.
        notes: What was done to the file to read it, or passed over.
    """

    size: tuple[int, int]
    content: Any
    notes: tuple[Note, ...] = ()


class ImageReader:
    """Reads and resizes the images of a data set.

    Args:
        dataset: The files of both domains.
        settings: How to read and resize them.
    """

    def __init__(self, dataset: Dataset, settings: DataSettings) -> None:
        self.dataset = dataset
        self.settings = settings
        self._stamps = {domain: [_stamp(file) for file in self.files(domain)] for domain in "AB"}

    def files(self, domain: str) -> tuple[ImageFile, ...]:
        """The files of domain A or B."""
        return self.dataset.files(domain)

    def encoding(self, domain: str) -> Encoding:
        """The encoding of the files of domain A or B."""
        return encoding_of(self.settings, domain)

    def read(self, domain: str, index: int) -> LoadedImage:
        """Read and resize an image; its content is an array (H, W, C) of its encoding's dtype.

        Raises:
            DataError: When the file cannot be read or has changed since this reader was created. The digest of the data set,
                under which caches store the pixels, describes the files at that time.
        """
        file = self.files(domain)[index]
        encoding = self.encoding(domain)
        image = read_decoded_image(file, encoding)
        if _stamp(file) != self._stamps[domain][index]:  # checked after reading, which a change may interrupt
            raise DataError(f"{file.path}: was replaced during training; resume the run to train on the new file")
        pixels = resize(image.pixels, self.settings, encoding)
        return LoadedImage((pixels.shape[1], pixels.shape[0]), pixels, image.notes)

    @cached_property
    def sizes(self) -> dict[str, list[int]]:
        """The largest number of pixels of each resized image according to its header; 0 if the header cannot be read."""
        return {domain: [self._measure(domain, file) for file in self.files(domain)] for domain in "AB"}

    def digest(self) -> bytes:
        """The SHA-256 of everything that determines the pixels."""
        settings = self.settings
        load_size = None if settings.resize == "none" else settings.load_size
        digest = hashlib.sha256(repr((_FORMAT, PIL.__version__, settings.resize, load_size)).encode())
        for domain in "AB":
            for file, stamp in zip(self.files(domain), self._stamps[domain], strict=True):
                about = [str(file.path.absolute()), stamp, file.half or ""]
                digest.update(json.dumps(about).encode())
            encoding = self.encoding(domain)
            about = [encoding.channels, encoding.range, encoding.clip, encoding.nodata, encoding.resample]
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
        # The header gives the size before any EXIF rotation, which decides along which side the file is halved.
        shapes = [(width // 2, height), (width, height // 2)] if file.half else [(width, height)]
        resized = [compute_size(shape, self.settings, side) for shape in shapes if min(shape)]
        return max((width * height for width, height in resized), default=0)


def _stamp(file: ImageFile) -> tuple[int, int] | None:
    """The size and modification time of a file; None if it does not exist, which reading it reports."""
    with contextlib.suppress(OSError):
        status = file.path.stat()
        return status.st_size, status.st_mtime_ns
    return None

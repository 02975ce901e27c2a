"""Image files, and pictures as tensors: 8-bit pixels in files, floats in [−1, 1] in tensors.

`gantoolkit.data.pixels` reads files.
"""

import io
import logging
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from gantoolkit.data.encoding import PICTURE
from gantoolkit.data.formats import HEADER_BYTES, PILLOW_FORMATS, describe_format
from gantoolkit.errors import DataError
from gantoolkit.files.atomic import describe_missing_file
from gantoolkit.files.paths import user_path
from gantoolkit.runtime.memory import available_memory, format_bytes

__all__ = [
    "ANY_NUMBER",
    "MAX_PIXELS",
    "ImageContent",
    "ImageFile",
    "TooManyPixelsError",
    "UnknownFormatError",
    "check_memory",
    "check_pixel_count",
    "convert_read_errors",
    "from_tensor",
    "has_color",
    "open_image",
    "open_stream",
    "read_size",
    "render_tensor",
    "to_tensor",
]

MAX_PIXELS = 178_956_970
"""Larger images are rejected before they are decoded: a small file may decode to more than the memory. Pillow's limit."""

ANY_NUMBER = 1 << 60
"""As the largest number of pixels: for headers, which are read without decoding the image."""

_NEGLIGIBLE_BYTES = 1 << 28
"""Below this size, the free memory is not read: it takes longer than it is worth."""
_LIMIT_LOCK = threading.RLock()

# Pillow logs irregularities of files; without a handler, they are printed.
logging.getLogger("PIL").addHandler(logging.NullHandler())


class TooManyPixelsError(DataError):
    """An image with too many pixels to be decoded."""


@dataclass(frozen=True)
class ImageFile:
    """An image on disk: a whole file, or one half of a file that shows two images side by side.

    Args:
        path: The file.
        half: The half of the file; None for the whole file.
    """

    path: Path
    half: Literal["left", "right"] | None = None

    @classmethod
    def of(cls, source: "str | os.PathLike[str] | ImageFile") -> "ImageFile":
        """Convert a path to an image file; an `ImageFile` is returned unchanged."""
        return source if isinstance(source, ImageFile) else cls(user_path(source))

    def __str__(self) -> str:
        return f"{self.path} ({self.half} half)" if self.half else str(self.path)

    @property
    def name(self) -> str:
        """The name of the file, without its folder."""
        return self.path.name

    def columns(self, width: int) -> slice:
        """The columns of this image in its file, which is `width` pixels wide.

        Raises:
            DataError: When `width` is odd and this image is one half.
        """
        if self.half is None:
            return slice(0, width)
        if width < 2 or width % 2:
            raise DataError(
                f"{self.path}: is {width} pixels wide; two images of equal width side by side need an even number"
            )
        return slice(0, width // 2) if self.half == "left" else slice(width // 2, width)


@dataclass(frozen=True)
class ImageContent:
    """The content of an image file in memory.

    Args:
        content: The bytes of the file.
        name: Its name in error messages.
    """

    content: bytes
    name: str = "the image"

    def __str__(self) -> str:
        return self.name


class UnknownFormatError(DataError):
    """A file whose content is not that of an image, or of a kind that Pillow does not read."""


def read_size(path: str | Path) -> tuple[int, int]:
    """Read the width and height from a file's header, before any EXIF rotation.

    Raises:
        DataError: As `open_image`.
    """
    with open_image(path) as file:
        return file.size


def has_color(path: str | Path) -> bool:
    """Whether a file has more than one channel or a palette, according to its header.

    Raises:
        DataError: As `open_image`.
    """
    with open_image(path) as file:
        return file.mode not in ("1", "L", "I") and not file.mode.startswith("I;16")


@contextmanager
def open_stream(source: str | Path | ImageContent) -> Iterator[IO[bytes]]:
    """Open a file, or its content in memory, for reading."""
    if isinstance(source, ImageContent):
        yield io.BytesIO(source.content)
        return
    with Path(source).open("rb") as stream:
        yield stream


@contextmanager
def open_image(source: str | Path | ImageContent, max_pixels: int | None = None) -> Iterator[Image.Image]:
    """Open an image file with Pillow without decoding it.

    Args:
        source: The file, or its content.
        max_pixels: The largest number of pixels; `MAX_PIXELS` by default.

    Raises:
        UnknownFormatError: When Pillow does not read the format.
        DataError: When the file cannot be opened, is truncated, or has more pixels than allowed.
    """
    with convert_read_errors(source), warnings.catch_warnings(), _allow_pixels(max_pixels):
        warnings.simplefilter("ignore")  # `MAX_PIXELS` replaces Pillow's warning about large images
        stream = io.BytesIO(source.content) if isinstance(source, ImageContent) else source
        try:
            with Image.open(stream, formats=PILLOW_FORMATS) as file:
                check_pixel_count(source, *file.size, max_pixels)
                yield file
        except Image.DecompressionBombError:
            raise TooManyPixelsError(
                f"{source}: has more than the {max_pixels or MAX_PIXELS:,} pixels allowed"
            ) from None


@contextmanager
def convert_read_errors(source: str | Path | ImageContent) -> Iterator[None]:
    """Convert any exception of a reader inside the block to a `DataError` of one sentence.

    Raises:
        DataError: When the block raises, or a path is not that of a regular file.
    """
    try:
        is_path = not isinstance(source, ImageContent)
        if is_path and (problem := describe_missing_file(Path(source), "an image file")):
            raise DataError(f"{source}: {problem}")
        yield
    except DataError:
        raise
    except UnidentifiedImageError:
        raise UnknownFormatError(f"{source}: {_describe_unknown(source)}") from None
    # For damaged files, readers raise any type: IndexError, struct.error, MemoryError.
    except Exception as error:
        raise DataError(f"{source}: is damaged or cannot be read ({str(error) or type(error).__name__})") from error


def check_pixel_count(name: object, width: int, height: int, max_pixels: int | None = None) -> None:
    """Check that an image is not too large.

    Args:
        name: The name of the image in error messages.
        max_pixels: The largest number of pixels; `MAX_PIXELS` by default.

    Raises:
        TooManyPixelsError: When it has more pixels.
    """
    limit = MAX_PIXELS if max_pixels is None else max_pixels
    if width * height > limit:
        raise TooManyPixelsError(f"{name}: {width}×{height} pixels are more than the {limit:,} allowed")


def check_memory(name: object, width: int, height: int, bytes_per_pixel: int) -> None:
    """Check that a large image can be decoded in the free memory.

    Raises:
        DataError: When it does not fit.
    """
    needed = width * height * bytes_per_pixel
    if needed < _NEGLIGIBLE_BYTES:
        return
    free = available_memory(torch.device("cpu"))
    if free is not None and needed > free:
        raise DataError(
            f"{name}: decoding {width}×{height} pixels takes {format_bytes(needed)} of memory, and {format_bytes(free)} are "
            "free"
        )


@contextmanager
def _allow_pixels(max_pixels: int | None) -> Iterator[None]:
    """Raise Pillow's own limit, which is global, if images may be larger."""
    if max_pixels is None or max_pixels <= MAX_PIXELS:
        yield
        return
    with _LIMIT_LOCK:
        previous, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, -(-max_pixels // 2)  # which it doubles
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = previous


def _describe_unknown(source: str | Path | ImageContent) -> str:
    with open_stream(source) as stream:
        kind = describe_format(stream.read(HEADER_BYTES))
    formats = f"supported formats are {', '.join(PILLOW_FORMATS)} and .npy (detected by content, not by name)"
    return f"is not a readable image{f', but {kind}' if kind else ''}; {formats}"


def to_tensor(image: Image.Image) -> Tensor:
    """Convert an 8-bit image to a float tensor (C, H, W) in [−1, 1]."""
    return PICTURE.to_floats(np.atleast_3d(np.asarray(image, dtype=np.uint8)))


def from_tensor(image: Tensor) -> Image.Image:
    """Convert a float tensor (C, H, W) in [−1, 1], C = 1 or 3, to an 8-bit image. Values are rounded and clipped."""
    array = PICTURE.from_floats(image)
    return Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)


def render_tensor(image: Tensor) -> Image.Image:
    """Render a float tensor (C, H, W) in [−1, 1] as a picture: the first 3 channels, or the first if there are fewer."""
    return from_tensor(image[:3] if len(image) >= 3 else image[:1])

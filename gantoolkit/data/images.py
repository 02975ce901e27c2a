"""Image files and tensors: 8-bit pixels at the file's border, floats in [−1, 1] inside.

How files are read: the EXIF orientation is applied; a palette is looked up; what is transparent is laid on white; CMYK becomes
RGB; 16-bit grey is scaled to 8 bit; grey becomes three equal channels where three are asked for, and colour becomes its
luminance where one is.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from gantoolkit.errors import DataError
from gantoolkit.files import whole_file

__all__ = [
    "MAX_PIXELS",
    "Half",
    "ImageFile",
    "from_tensor",
    "read_image",
    "read_size",
    "scale",
    "to_tensor",
    "write_image",
]

MAX_PIXELS = 200_000_000
"""Larger images are refused before they are decoded: a small file can hold one that fills the memory."""


@dataclass(frozen=True)
class Half:
    """One half of an image file that shows two images side by side."""

    path: Path
    side: Literal["left", "right"]

    def __str__(self) -> str:
        return f"{self.path} ({self.side} half)"

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.name


ImageFile = Path | Half
"""Where an image is read from."""

_MODES = {1: "L", 3: "RGB"}
_QUALITY = 95


def read_image(path: str | ImageFile, channels: int = 3) -> Image.Image:
    """Read a file, or one half of it, as an 8-bit image of mode `L` (1 channel) or `RGB` (3).

    Raises:
        DataError: When it cannot be read, is no image, is cut off, or has more than `MAX_PIXELS`.
    """
    if isinstance(path, Half):
        both = read_image(path.path, channels)
        if both.width < 2 or both.width % 2:
            raise DataError(
                f"{path.path}: is {both.width} pixels wide; two images of one width side by side cannot be that"
            )
        middle = both.width // 2
        return both.crop((0, 0, middle, both.height) if path.side == "left" else (middle, 0, both.width, both.height))
    with _open(path) as file:
        return to_mode(ImageOps.exif_transpose(file), channels)


def read_size(path: str | Path) -> tuple[int, int]:
    """Width and height that a file's header speaks of; nothing is decoded, and nothing turned as EXIF asks for.

    Raises:
        DataError: As `read_image`, where the header shows it already.
    """
    with _open(path) as file:
        return file.size


@contextmanager
def _open(path: str | Path) -> Iterator[Image.Image]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # our own bound stands in for Pillow's warning about large images
            with Image.open(path) as file:
                width, height = file.size
                if width * height > MAX_PIXELS:
                    raise DataError(f"{path}: {width}×{height} pixels are more than the {MAX_PIXELS:,} allowed")
                yield file
    except UnidentifiedImageError:
        raise DataError(f"{path}: is no image that can be read (content, not name, decides)") from None
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (Image.DecompressionBombError, OSError, SyntaxError, ValueError, MemoryError) as error:
        raise DataError(f"{path}: is damaged or cannot be read ({error})") from error


def to_mode(image: Image.Image, channels: int) -> Image.Image:
    """Bring an open image into mode `L` (1 channel) or `RGB` (3)."""
    if image.mode.startswith("I;16"):
        scaled = np.asarray(image, dtype=np.uint16) / 257  # 65535 becomes 255
        return Image.fromarray(np.rint(scaled).astype(np.uint8)).convert(_MODES[channels])
    if "transparency" in image.info or image.mode in ("LA", "La", "PA", "RGBA", "RGBa"):
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert(_MODES[channels])


def to_tensor(image: Image.Image) -> Tensor:
    """An 8-bit image as a float tensor (C, H, W) in [−1, 1]."""
    pixels = np.array(image, dtype=np.uint8)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    return scale(torch.from_numpy(pixels).permute(2, 0, 1))


def scale(levels: Tensor) -> Tensor:
    """Levels 0 to 255 as floats in [−1, 1]."""
    return levels.float().div_(127.5).sub_(1)


def from_tensor(image: Tensor) -> Image.Image:
    """A float tensor (C, H, W) in [−1, 1], C = 1 or 3, as an 8-bit image; values are rounded, and clipped to the range."""
    pixels = image.detach().cpu().float().add(1).mul(127.5).round().clamp(0, 255).byte()
    array = pixels.permute(1, 2, 0).numpy()
    return Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)


def write_image(image: Image.Image, path: str | Path) -> None:
    """Write a PNG or JPEG (by the path's suffix), whole or not at all; folders are made.

    Raises:
        DataError: When it cannot be written; nothing half-written is left.
    """
    path = Path(path)
    kind = "JPEG" if path.suffix.lower() in (".jpg", ".jpeg") else "PNG"
    try:
        with whole_file(path) as part:
            image.save(part, kind, **({"quality": _QUALITY} if kind == "JPEG" else {}))
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror or error})") from error

"""Image files and tensors: 8-bit pixels in files, floats in [−1, 1] in tensors.

How files are read:

- The EXIF orientation is applied; invalid EXIF data is ignored. Color profiles are ignored.
- Palettes are looked up. Transparent pixels are composited on white.
- CMYK becomes RGB, including the inverted CMYK of JPEG files written by Adobe programs.
- 12 and 16 bits are scaled to 8.
- The first of several frames is used.
- Gray is repeated to three channels, and color is reduced to its luminance, as requested.
- Floats and 32-bit integers, which do not define white, and LAB colors are rejected.

Images with other bit depths and channels are read as arrays: see `gantoolkit.data.pixels`.
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import ExifTags, Image, ImageChops, UnidentifiedImageError
from torch import Tensor

from gantoolkit.data.encoding import PICTURE
from gantoolkit.errors import DataError
from gantoolkit.files.atomic import describe_missing_file
from gantoolkit.files.paths import user_path

__all__ = [
    "MAX_PIXELS",
    "ImageFile",
    "TooManyPixelsError",
    "check_pixel_count",
    "convert_read_errors",
    "decode",
    "decode_image",
    "from_tensor",
    "has_color",
    "open_image",
    "read_image",
    "read_size",
    "render_tensor",
    "to_mode",
    "to_tensor",
]

MAX_PIXELS = 178_956_970
"""Larger images are rejected before they are decoded: a small file may decode to more than the memory. Pillow's limit."""


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
    def of(cls, source: "str | Path | ImageFile") -> "ImageFile":
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


_MODES = {1: "L", 3: "RGB"}
_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "PPM", "TIFF", "WEBP")
"""No other format is tried. Pillow knows dozens more and runs other programs for some of them (EPS)."""
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The operation that turns the pixels of each EXIF orientation upright."""
_PHOTOMETRIC, _BITS = 262, 258  # TIFF tags


def read_image(source: str | Path | ImageFile, channels: int = 3) -> Image.Image:
    """Read a file, or one half of it, as an 8-bit image of mode `L` (1 channel) or `RGB` (3).

    Raises:
        DataError: When the file cannot be read, is not an image, is truncated, or has more than `MAX_PIXELS`.
    """
    image_file = ImageFile.of(source)
    path = image_file.path
    with open_image(path) as file:
        try:
            image = to_mode(decode(file), channels)
        except DataError as error:
            raise DataError(f"{path}: {error}") from error
    if image_file.half is None:
        return image
    columns = image_file.columns(image.width)
    return image.crop((columns.start, 0, columns.stop, image.height))


def decode_image(content: bytes, channels: int = 3, *, name: str, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode the content of an image file as `read_image` does.

    Args:
        name: The name of the image in error messages.
        max_pixels: The largest number of pixels.

    Raises:
        TooManyPixelsError: When the image has more pixels. It is not decoded.
        DataError: As `read_image`.
    """
    with open_image(name, io.BytesIO(content), min(max_pixels, MAX_PIXELS)) as file:
        try:
            return to_mode(decode(file), channels)
        except DataError as error:
            raise DataError(f"{name}: {error}") from error


def read_size(path: str | Path) -> tuple[int, int]:
    """Read the width and height from a file's header, before any EXIF rotation.

    Raises:
        DataError: As `read_image`, as far as the header shows it.
    """
    with open_image(path) as file:
        return file.size


def has_color(path: str | Path) -> bool:
    """Whether a file has more than one channel or a palette, according to its header.

    Raises:
        DataError: As `read_size`.
    """
    with open_image(path) as file:
        return file.mode not in ("1", "L", "I") and not file.mode.startswith("I;16")


@contextmanager
def open_image(
    path: str | Path, content: io.BytesIO | None = None, max_pixels: int | None = None
) -> Iterator[Image.Image]:
    """Open an image file with Pillow without decoding it.

    Args:
        path: The file, or the name of `content` in error messages.
        content: The content of the file, if it is in memory.
        max_pixels: The largest number of pixels; `MAX_PIXELS` by default.

    Raises:
        DataError: As `read_image`.
    """
    with convert_read_errors(path, is_file=content is None), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # `MAX_PIXELS` replaces Pillow's warning about large images
        try:
            with Image.open(content or path, formats=_FORMATS) as file:
                check_pixel_count(path, *file.size, max_pixels)
                yield file
        except Image.DecompressionBombError:
            raise TooManyPixelsError(f"{path}: has more than the {max_pixels or MAX_PIXELS:,} pixels allowed") from None


@contextmanager
def convert_read_errors(path: str | Path, *, is_file: bool = True) -> Iterator[None]:
    """Convert any exception of a reader inside the block to a `DataError` of one sentence.

    Args:
        is_file: Whether `path` has to be a regular file.

    Raises:
        DataError: When the block raises, or `path` is not a regular file.
    """
    try:
        if is_file and (problem := describe_missing_file(Path(path), "an image file")):
            raise DataError(f"{path}: {problem}")
        yield
    except DataError:
        raise
    except UnidentifiedImageError:
        raise DataError(
            f"{path}: is not a readable image; supported formats are {', '.join(_FORMATS)} (detected by content, not by name)"
        ) from None
    # For damaged files, readers raise any type: IndexError, struct.error, MemoryError.
    except Exception as error:
        raise DataError(f"{path}: is damaged or cannot be read ({str(error) or type(error).__name__})") from error


def check_pixel_count(path: str | Path, width: int, height: int, max_pixels: int | None = None) -> None:
    """Check that an image is not too large.

    Args:
        max_pixels: The largest number of pixels; `MAX_PIXELS` by default.

    Raises:
        TooManyPixelsError: When it has more pixels.
    """
    limit = MAX_PIXELS if max_pixels is None else max_pixels
    if width * height > limit:
        raise TooManyPixelsError(f"{path}: {width}×{height} pixels are more than the {limit:,} allowed")


def decode(file: Image.Image) -> Image.Image:
    """Decode an open file: upright, and corrected where Pillow's mode does not describe the values in the file."""
    is_16_bit = any(part.args == "RGB;16B" for part in getattr(file, "tile", ()))
    file.load()
    if is_16_bit and "transparency" in file.info:  # Pillow drops the lower byte of the pixels
        file.info["transparency"] = tuple(level >> 8 for level in file.info["transparency"])
    image = _turn_upright(file)
    if file.mode == "CMYK" and file.format in ("JPEG", "MPO") and "adobe" not in file.info:
        return ImageChops.invert(image)  # Pillow inverts every CMYK JPEG, as if Adobe had written it
    if file.mode == "I" and file.format in ("PNG", "PPM"):
        return Image.fromarray(np.asarray(image).clip(0, 65535).astype(np.uint16))
    if file.mode.startswith("I;16") and file.format == "TIFF":
        tags = file.tag_v2  # type: ignore[attr-defined]
        levels = np.asarray(image).astype(np.uint16)
        if tags.get(_BITS) == (12,):
            levels = levels << 4 | levels >> 8
        return Image.fromarray(~levels if tags.get(_PHOTOMETRIC) == 0 else levels)  # 0 means that 0 is white
    return image


def _turn_upright(file: Image.Image) -> Image.Image:
    try:
        orientation = file.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # invalid EXIF data does not affect the pixels
        return file
    return file.transpose(_TURNS[orientation]) if orientation in _TURNS else file


def to_mode(image: Image.Image, channels: int) -> Image.Image:
    """Convert an open image to mode `L` (1 channel) or `RGB` (3).

    Raises:
        DataError: When its mode does not define white, or cannot be converted to RGB.
    """
    if image.mode in ("I", "F"):
        raise DataError(
            f"an image of mode '{image.mode}' does not define which value is white; save it with 8 or 16 bits, or set "
            "data.range_A or data.range_B to the range of its values"
        )
    if image.mode == "LAB":
        raise DataError("LAB colors are not supported; save the image as RGB")
    if image.mode.startswith("I;16"):
        levels = np.asarray(image).astype(np.uint16)
        if isinstance(transparent := image.info.get("transparency"), int):
            levels = np.where(levels == transparent, 65535, levels)
        scaled = levels / 257  # 65535 becomes 255
        return Image.fromarray(np.rint(scaled).astype(np.uint8)).convert(_MODES[channels])
    if "transparency" in image.info or image.mode in ("LA", "La", "PA", "RGBA", "RGBa"):
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert(_MODES[channels])


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

"""Image files and tensors: 8-bit pixels at the file's border, floats in [−1, 1] inside.

How files are read: the EXIF orientation is applied, and one that is broken asks for nothing; a palette is looked up; what is
transparent is laid on white; CMYK becomes RGB, whether a JPEG holds it as it is or, as Adobe writes it, inverted; 12 and 16
bits are scaled to 8; of several frames the first is taken; gray becomes three equal channels where three are asked for, and
color becomes its luminance where one is. What does not say which value is white (floats, 32-bit integers), or has the colors
of LAB, is refused. Color profiles are passed over.

Images of other depths and channels are arrays, not pictures: see `gantoolkit.data.pixels`.
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
from gantoolkit.files.atomic import describe_absence, describe_failure, whole_file

__all__ = [
    "MAX_PIXELS",
    "ImageFile",
    "TooManyPixelsError",
    "decode",
    "decode_image",
    "draw_tensor",
    "explain_damage",
    "from_tensor",
    "has_color",
    "open_image",
    "read_image",
    "read_size",
    "refuse_many_pixels",
    "to_mode",
    "to_tensor",
    "write_image",
]

MAX_PIXELS = 178_956_970
"""Larger images are refused before they are decoded: a small file can hold one that fills the memory. Pillow's own bound."""


class TooManyPixelsError(DataError):
    """An image that is larger than what is decoded."""


@dataclass(frozen=True)
class ImageFile:
    """An image on disk: a whole file, or one half of a file that shows two images side by side.

    Args:
        path: The file.
        half: Which half of it; None for the whole file.
    """

    path: Path
    half: Literal["left", "right"] | None = None

    @classmethod
    def of(cls, source: "str | Path | ImageFile") -> "ImageFile":
        """The image file at a path; an `ImageFile` is returned as it is."""
        return source if isinstance(source, ImageFile) else cls(Path(source))

    def __str__(self) -> str:
        return f"{self.path} ({self.half} half)" if self.half else str(self.path)

    @property
    def name(self) -> str:
        """The name of the file, without its folder."""
        return self.path.name

    def columns(self, width: int) -> slice:
        """The columns of the file that belong to this image, for a file of `width` pixels.

        Raises:
            DataError: When the file cannot be halved.
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
"""Nothing else is tried: Pillow knows dozens more, and hands some of them (EPS) to other programs."""
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What has to be done to pixels of each EXIF orientation."""
_PHOTOMETRIC, _BITS = 262, 258  # tags of TIFF
_QUALITY = 95


def read_image(source: str | Path | ImageFile, channels: int = 3) -> Image.Image:
    """Read a file, or one half of it, as an 8-bit image of mode `L` (1 channel) or `RGB` (3).

    Raises:
        DataError: When it cannot be read, is no image, is cut off, or has more than `MAX_PIXELS`.
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
    """Read what is in an image file, as `read_image` does.

    Args:
        name: What errors call it.
        max_pixels: The most that it may have.

    Raises:
        TooManyPixelsError: When it has more; nothing has been decoded then.
        DataError: As `read_image`.
    """
    with open_image(name, io.BytesIO(content), min(max_pixels, MAX_PIXELS)) as file:
        try:
            return to_mode(decode(file), channels)
        except DataError as error:
            raise DataError(f"{name}: {error}") from error


def read_size(path: str | Path) -> tuple[int, int]:
    """Width and height that a file's header speaks of; nothing is decoded, and nothing turned as EXIF asks for.

    Raises:
        DataError: As `read_image`, where the header shows it already.
    """
    with open_image(path) as file:
        return file.size


def has_color(path: str | Path) -> bool:
    """Whether a file's header speaks of more than one channel or of a palette.

    Raises:
        DataError: As `read_size`.
    """
    with open_image(path) as file:
        return file.mode not in ("1", "L", "I") and not file.mode.startswith("I;16")


@contextmanager
def open_image(
    path: str | Path, content: io.BytesIO | None = None, max_pixels: int | None = None
) -> Iterator[Image.Image]:
    """Open an image file with Pillow; nothing is decoded yet.

    Args:
        path: The file, or what errors call its content.
        content: What it holds, where it is in memory.
        max_pixels: The most that it may have, if not `MAX_PIXELS`.

    Raises:
        DataError: As `read_image`.
    """
    with explain_damage(path, is_file=content is None), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # our own bound stands in for Pillow's warning about large images
        try:
            with Image.open(content or path, formats=_FORMATS) as file:
                refuse_many_pixels(path, *file.size, max_pixels)
                yield file
        except Image.DecompressionBombError:
            raise TooManyPixelsError(f"{path}: has more than the {max_pixels or MAX_PIXELS:,} pixels allowed") from None


@contextmanager
def explain_damage(path: str | Path, *, is_file: bool = True) -> Iterator[None]:
    """Whatever a reader raises at a file becomes one sentence.

    Args:
        is_file: Whether there has to be a regular file of that name.

    Raises:
        DataError: When the body raises, or there is no such file.
    """
    try:
        if is_file and (problem := describe_absence(Path(path), "an image file")):
            raise DataError(f"{path}: {problem}")
        yield
    except DataError:
        raise
    except UnidentifiedImageError:
        raise DataError(
            f"{path}: is no image that can be read; {', '.join(_FORMATS)} can (content, not name, decides)"
        ) from None
    # At damaged files readers raise whatever their code comes to: IndexError, struct.error, MemoryError.
    except Exception as error:
        raise DataError(f"{path}: is damaged or cannot be read ({str(error) or type(error).__name__})") from error


def refuse_many_pixels(path: str | Path, width: int, height: int, max_pixels: int | None = None) -> None:
    """Refuse an image that is too large.

    Args:
        max_pixels: The most that it may have, if not `MAX_PIXELS`.

    Raises:
        TooManyPixelsError: When it is.
    """
    most = MAX_PIXELS if max_pixels is None else max_pixels
    if width * height > most:
        raise TooManyPixelsError(f"{path}: {width}×{height} pixels are more than the {most:,} allowed")


def decode(file: Image.Image) -> Image.Image:
    """The pixels of an open file, upright, with the values that the file means and its mode does not say."""
    deep = any(part.args == "RGB;16B" for part in getattr(file, "tile", ()))
    file.load()
    if deep and "transparency" in file.info:  # the pixels lose their lower byte, and what is compared with them has to
        file.info["transparency"] = tuple(level >> 8 for level in file.info["transparency"])
    image = _turn_upright(file)
    if file.mode == "CMYK" and file.format in ("JPEG", "MPO") and "adobe" not in file.info:
        return ImageChops.invert(image)  # Pillow takes each for one of Adobe's, and has inverted it
    if file.mode == "I" and file.format in ("PNG", "PPM"):
        return Image.fromarray(np.asarray(image).clip(0, 65535).astype(np.uint16))
    if file.mode.startswith("I;16") and file.format == "TIFF":
        tags = file.tag_v2  # type: ignore[attr-defined]
        levels = np.asarray(image).astype(np.uint16)
        if tags.get(_BITS) == (12,):
            levels = levels << 4 | levels >> 8
        return Image.fromarray(~levels if tags.get(_PHOTOMETRIC) == 0 else levels)  # there 0 is white
    return image


def _turn_upright(file: Image.Image) -> Image.Image:
    try:
        orientation = file.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # broken EXIF is no fault of the pixels
        return file
    return file.transpose(_TURNS[orientation]) if orientation in _TURNS else file


def to_mode(image: Image.Image, channels: int) -> Image.Image:
    """Bring an open image into mode `L` (1 channel) or `RGB` (3).

    Raises:
        DataError: When its mode does not say what is white, or has no way to RGB.
    """
    if image.mode in ("I", "F"):
        raise DataError(
            f"an image of mode '{image.mode}' does not say which value is white; save it with 8 or 16 bits, or say what its "
            "values mean with data.range_A or data.range_B"
        )
    if image.mode == "LAB":
        raise DataError("its colors are LAB, which are not read; save it as RGB")
    if image.mode.startswith("I;16"):
        levels = np.asarray(image).astype(np.uint16)
        if isinstance(clear := image.info.get("transparency"), int):
            levels = np.where(levels == clear, 65535, levels)
        scaled = levels / 257  # 65535 becomes 255
        return Image.fromarray(np.rint(scaled).astype(np.uint8)).convert(_MODES[channels])
    if "transparency" in image.info or image.mode in ("LA", "La", "PA", "RGBA", "RGBa"):
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert(_MODES[channels])


def to_tensor(image: Image.Image) -> Tensor:
    """An 8-bit image as a float tensor (C, H, W) in [−1, 1]."""
    return PICTURE.to_floats(np.atleast_3d(np.asarray(image, dtype=np.uint8)))


def from_tensor(image: Tensor) -> Image.Image:
    """A float tensor (C, H, W) in [−1, 1], C = 1 or 3, as an 8-bit image; values are rounded, and clipped to the range."""
    array = PICTURE.from_floats(image)
    return Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)


def draw_tensor(image: Tensor) -> Image.Image:
    """A float tensor (C, H, W) in [−1, 1] as a picture of it: of more than three channels the first three, of two the first."""
    return from_tensor(image[:3] if len(image) >= 3 else image[:1])


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
        raise DataError(describe_failure(path, error)) from error

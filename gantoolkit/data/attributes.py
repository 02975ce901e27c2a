"""What an image file holds besides its pixels: resolution, EXIF data, a color profile, a georeference.

The orientation is not among them: pixels are upright once they are read. Neither are thumbnails and a camera's private data
(maker notes), which may show the image as it was.
"""

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image, TiffImagePlugin

from gantoolkit.data.encoding import Encoding
from gantoolkit.data.formats import detect_format
from gantoolkit.data.georeference import GEOREFERENCE_TAGS, Georeference, read_georeference
from gantoolkit.data.images import ANY_NUMBER, open_image
from gantoolkit.errors import DataError

__all__ = ["Attributes", "read_attributes", "text_tags"]

_BIG_TIFF_VERSION = 43
_RESOLUTION_X, _RESOLUTION_Y, _RESOLUTION_UNIT, _PROFILE = 282, 283, 296, 34675
_TAGS = (ExifTags.Base.Orientation, _RESOLUTION_X, _RESOLUTION_Y, _RESOLUTION_UNIT, _PROFILE, *GEOREFERENCE_TAGS)
_PER_INCH = {2: 1.0, 3: 2.54}
"""Units of resolution (TIFF 6.0, section 8) as a factor to pixels per inch; a file without a unit means inches."""
_MAX_DPI = 65535
_DESCRIPTION = ExifTags.Base.ImageDescription
_TEXT_TAGS = (
    _DESCRIPTION,
    ExifTags.Base.Make,
    ExifTags.Base.Model,
    ExifTags.Base.DateTime,
    ExifTags.Base.Artist,
    ExifTags.Base.HostComputer,
    ExifTags.Base.Copyright,
)
_STRUCTURED = ("<", "{", "ImageJ=", "SCANIMAGE")
"""How descriptions begin that describe the arrangement of a file's pixels to programs: OME-TIFF, tifffile, ImageJ."""
_PRIVATE = {
    ExifTags.Base.MakerNote,
    ExifTags.Base.ExifImageWidth,
    ExifTags.Base.ExifImageHeight,
    ExifTags.Base.ExifInteroperabilityOffset,
}
_SRGB = 1


@dataclass(frozen=True)
class Attributes:
    """What an image file holds besides its pixels.

    Args:
        dpi: Pixels per inch, horizontally and vertically, of the upright image; None if not stated.
        exif: EXIF data, as Pillow writes them; empty if there are none.
        profile: The ICC profile; empty for pictures, whose colors are sRGB once they are read.
        georeference: Where the image lies on the ground, before it is turned.
        is_turned: Whether the orientation turns or mirrors the image when it is read.
    """

    dpi: tuple[float, float] | None = None
    exif: bytes = b""
    profile: bytes = b""
    georeference: Georeference = Georeference()
    is_turned: bool = False

    def resized(self, size: tuple[int, int], new_size: tuple[int, int]) -> "Attributes":
        """The attributes of the image resized from one width and height to another: it covers the same area."""
        dpi = self.dpi and (self.dpi[0] * new_size[0] / size[0], self.dpi[1] * new_size[1] / size[1])
        return replace(self, dpi=_valid_dpi(dpi), georeference=self.georeference.resized(size, new_size))

    def profile_for(self, channels: int) -> bytes:
        """The ICC profile, if it is one for images of that many channels, or of one fewer and transparency; else empty."""
        colors = {b"GRAY": 1, b"RGB ": 3, b"CMYK": 4}.get(self.profile[16:20], 0)
        return self.profile if colors and channels in (colors, colors + 1) else b""


def read_attributes(path: str | Path, encoding: Encoding) -> Attributes:
    """Read the attributes of an image file; for a file of several pages, those of the first. Invalid ones are ignored.

    Args:
        encoding: The encoding in which the pixels are read.
    """
    path = Path(path)
    tags = _read_tiff_tags(path)
    dpi, exif, profile, is_turned = _read_with_pillow(path)
    if tags:
        dpi = dpi or _tiff_dpi(tags)
        profile = profile or _bytes(tags.get(_PROFILE))
        is_turned = tags.get(ExifTags.Base.Orientation, 1) in range(2, 9)
    return Attributes(
        dpi=dpi,
        exif=_clean(exif, is_srgb=encoding.is_picture),
        profile=b"" if encoding.is_picture else profile,
        georeference=read_georeference(tags),
        is_turned=is_turned,
    )


def text_tags(exif: bytes) -> list[tuple[int, str, int, Any, bool]]:
    """The text among EXIF data, such as the camera and the copyright, in the form of `Georeference.tags`."""
    data = _load(exif)
    texts = {int(code): str(data[code]).encode("latin-1", "replace") + b"\0" for code in _TEXT_TAGS if code in data}
    return [(code, "s", len(text), text, False) for code, text in texts.items()]


def _read_with_pillow(path: Path) -> tuple[tuple[float, float] | None, Image.Exif, bytes, bool]:
    """Resolution, EXIF data, profile, and whether the pixels are turned, of a file that Pillow can open."""
    try:
        with open_image(path, max_pixels=ANY_NUMBER) as file, warnings.catch_warnings(action="ignore"):
            exif = _load_safely(file)
            orientation = exif.get(ExifTags.Base.Orientation, 1)
            dpi = _valid_dpi(file.info.get("dpi")) or _tiff_dpi(exif)
            if dpi and orientation in (5, 6, 7, 8):  # rows become columns
                dpi = dpi[1], dpi[0]
            return dpi, exif, _bytes(file.info.get("icc_profile")), orientation in range(2, 9)
    except DataError:  # many channels, floats, and .npy: Pillow opens none of them
        return None, Image.Exif(), b"", False


def _load_safely(file: Image.Image) -> Image.Exif:
    exif = Image.Exif()
    try:
        read = file.getexif()
        for code, value in read.items():
            if code in _TEXT_TAGS or code in (
                _RESOLUTION_X,
                _RESOLUTION_Y,
                _RESOLUTION_UNIT,
                ExifTags.Base.Orientation,
            ):
                exif[code] = value
        for directory in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
            if values := dict(read.get_ifd(directory)):
                exif[directory] = values
    except Exception:  # invalid EXIF data raise any type; they do not affect the pixels
        return Image.Exif()
    return exif


def _clean(exif: Image.Exif, *, is_srgb: bool) -> bytes:
    """EXIF data that hold for a translation, which is upright and of another size; empty if there are none."""
    result = Image.Exif()
    for code in _TEXT_TAGS:
        text = exif.get(code)
        if isinstance(text, str) and text and not (code == _DESCRIPTION and text.lstrip().startswith(_STRUCTURED)):
            result[code] = text.encode("latin-1", "replace")  # Pillow decodes it so, and would encode it as ASCII
    shot = {code: value for code, value in exif.get(ExifTags.IFD.Exif, {}).items() if code not in _PRIVATE}
    if is_srgb and ExifTags.Base.ColorSpace in shot:
        shot[ExifTags.Base.ColorSpace] = _SRGB
    for directory, values in ((ExifTags.IFD.Exif, shot), (ExifTags.IFD.GPSInfo, exif.get(ExifTags.IFD.GPSInfo))):
        if values:
            result[directory] = values
    if not len(result):
        return b""
    result[ExifTags.Base.Orientation] = 1
    try:
        content = result.tobytes()
        _load(content)
    except Exception:  # values of types that cannot be written
        return b""
    return content


def _load(exif: bytes) -> Image.Exif:
    data = Image.Exif()
    if exif:
        data.load(exif)
    return data


def _read_tiff_tags(path: Path) -> Mapping[int, Any]:
    """The tags of the first page of a TIFF file, also of those that Pillow cannot open; empty for other files."""
    try:
        with path.open("rb") as file, warnings.catch_warnings(action="ignore"):
            head = file.read(8)
            if detect_format(head) != "tiff":
                return {}
            if _BIG_TIFF_VERSION in head[2:4]:
                head += file.read(8)
            # Pillow looks for the version in the third byte, whatever the byte order.
            little_endian = b"II" + head[3:1:-1] + head[4:] if head[:2] == b"MM" else head
            directory = TiffImagePlugin.ImageFileDirectory_v2(little_endian, prefix=head[:2])
            file.seek(directory.next)
            directory.load(file)
            return {code: directory[code] for code in _TAGS if code in directory}
    except Exception:  # damaged files raise any type; reading their pixels reports them
        return {}


def _tiff_dpi(tags: Mapping[int, Any]) -> tuple[float, float] | None:
    factor = _PER_INCH.get(tags.get(_RESOLUTION_UNIT, 2))
    resolution = tags.get(_RESOLUTION_X), tags.get(_RESOLUTION_Y)
    if factor is None or None in resolution:
        return None
    return _valid_dpi(tuple(factor * _number(value) for value in resolution))


def _valid_dpi(value: Any) -> tuple[float, float] | None:
    if not isinstance(value, tuple) or len(value) != 2:
        return None
    x, y = map(_number, value)
    return (x, y) if 1 < x <= _MAX_DPI and 1 < y <= _MAX_DPI else None  # Pillow reads a missing one of TIFF as 1


def _number(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return 0.0
    return number if math.isfinite(number) else 0.0


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else b""

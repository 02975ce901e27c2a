"""Pictures: decoded images as gray or RGB with 8 bits.

- The EXIF orientation is applied; invalid EXIF data is ignored.
- Palettes are looked up. Transparent pixels are blended with white.
- CMYK becomes RGB, including the inverted CMYK of JPEG files written by Adobe programs.
- Colors are converted to sRGB if there is a profile. An invalid profile is ignored.
- 12 and 16 bits are scaled to 8.
- Gray is repeated to three channels, and color is reduced to its luminance, as requested.
- Floats and 32-bit integers, which do not define white, and LAB colors are rejected.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops

from gantoolkit.data.encoding import Encoding
from gantoolkit.data.images import UnknownFormatError
from gantoolkit.data.notes import CONVERTED_COLORS, IGNORED_PROFILE, TRANSPARENT_PIXELS, Note
from gantoolkit.data.orientation import turn_image
from gantoolkit.data.profiles import ProfileError, convert_to_srgb
from gantoolkit.errors import DataError

__all__ = ["Picture", "change_mode", "convert_picture", "decode"]

_MODES = {1: "L", 3: "RGB"}
_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # TIFF tags


@dataclass(frozen=True)
class Picture:
    """A gray or RGB picture.

    Args:
        image: The image, of mode `L` or `RGB`.
        alpha: The opacity (H, W) of each pixel as uint8; None if all are opaque.
        notes: How its pixels were converted.
    """

    image: Image.Image
    alpha: np.ndarray | None = None
    notes: tuple[Note, ...] = ()


def decode(file: Image.Image) -> Image.Image:
    """Decode an open file: upright, and corrected where Pillow's mode does not describe the values in the file.

    Raises:
        UnknownFormatError: When Pillow does not read samples of this kind.
    """
    is_16_bit = any(part.args == "RGB;16B" for part in getattr(file, "tile", ()))
    try:
        file.load()
    except ValueError as error:
        if file.format == "TIFF" and "raw mode" in str(error):  # Pillow opens some files whose samples it does not know
            raise UnknownFormatError(f"is not readable ({error})") from error
        raise
    if is_16_bit and "transparency" in file.info:  # Pillow drops the lower byte of the pixels
        file.info["transparency"] = tuple(level >> 8 for level in file.info["transparency"])
    image = turn_image(file)
    if file.mode == "CMYK" and file.format in ("JPEG", "MPO") and "adobe" not in file.info:
        return ImageChops.invert(image)  # Pillow inverts every CMYK JPEG, as if Adobe had written it
    if file.mode == "I" and file.format in ("PNG", "PPM"):
        return _replace_levels(image, np.asarray(image).clip(0, 65535).astype(np.uint16))
    if file.mode.startswith("I;16") and file.format == "TIFF":
        tags = file.tag_v2  # type: ignore[attr-defined]
        levels = np.asarray(image).astype(np.uint16)
        if tags.get(_BITS) == (12,):
            levels = levels << 4 | levels >> 8
        return _replace_levels(image, ~levels if tags.get(_PHOTOMETRIC) == 0 else levels)  # 0 means that 0 is white
    return image


def _replace_levels(image: Image.Image, levels: np.ndarray) -> Image.Image:
    replacement = Image.fromarray(levels)
    replacement.info = image.info
    return replacement


def convert_picture(image: Image.Image, encoding: Encoding) -> Picture:
    """Convert a decoded image to the gray (1 channel) or RGB (3 channels) of an encoding.

    Raises:
        DataError: When its mode does not define white, or cannot be converted to RGB.
    """
    if image.mode in ("I", "F"):
        dtype = np.float32 if image.mode == "F" else np.int32
        raise DataError(
            f"holds 1 band of {_name_type(image)}, whose type does not define which value is white; a recipe with "
            f"{encoding.describe_settings(1, np.dtype(dtype))} reads it"
        )
    if image.mode == "LAB":
        raise DataError("LAB colors are not supported; save the image as RGB")
    profile = image.info.get("icc_profile")
    image, alpha = _split_alpha(image)
    notes: list[Note] = []
    if profile:
        image = _apply_profile(image, profile, notes)
    if alpha is not None:
        image, notes = _blend_with_white(image, alpha), [*notes, TRANSPARENT_PIXELS]
    image = change_mode(image, _MODES[encoding.channels])
    return Picture(image, None if alpha is None else np.asarray(alpha), tuple(notes))


def _name_type(image: Image.Image) -> str:
    """The type of the values of an image of mode I or F, as a dtype if its TIFF file states it."""
    tags = getattr(image, "tag_v2", {})
    kind = {1: "uint", 2: "int", 3: "float"}.get(next(iter(tags.get(_SAMPLE_FORMAT, ())), 0))
    if kind and _BITS in tags:
        return f"{kind}{tags[_BITS][0]}"
    return "floats" if image.mode == "F" else "integers with a sign or 32 bits"


def change_mode(image: Image.Image, mode: str) -> Image.Image:
    """Convert an image to a mode; unlike `Image.convert`, without a copy of an image that has it."""
    return image if image.mode == mode else image.convert(mode)


def _split_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """The colors of an image with 8 bits, and its opacity (mode L) if a pixel is not opaque."""
    if image.mode.startswith("I;16"):
        levels = np.asarray(image).astype(np.uint16)
        gray = Image.fromarray(np.rint(levels / 257).astype(np.uint8))  # 65535 becomes 255
        transparent = image.info.get("transparency")
        if not isinstance(transparent, int) or not (hidden := levels == transparent).any():
            return gray, None
        return gray, Image.fromarray(np.where(hidden, 0, 255).astype(np.uint8))
    if image.mode == "La":  # Pillow converts it to no other mode
        image = image.convert("LA")
    if "transparency" not in image.info and image.mode not in ("LA", "PA", "RGBA", "RGBa"):
        return image, None
    layer = change_mode(image, "RGBA")
    alpha = layer.getchannel("A")
    is_gray = image.mode in ("L", "LA")
    colors = layer.getchannel("R") if is_gray else layer.convert("RGB")
    return colors, None if alpha.getextrema()[0] == 255 else alpha


def _apply_profile(image: Image.Image, profile: bytes, notes: list[Note]) -> Image.Image:
    if image.mode not in ("L", "RGB", "CMYK"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    try:
        converted = convert_to_srgb(image, profile)
    except ProfileError:
        notes.append(IGNORED_PROFILE)
        return image
    if converted is None:
        return image
    notes.append(CONVERTED_COLORS)
    return converted


def _blend_with_white(image: Image.Image, alpha: Image.Image) -> Image.Image:
    layer = image.convert("RGB")
    layer.putalpha(alpha)
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")

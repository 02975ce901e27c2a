"""What an image holds besides pixels and how its translation gets it back: transparency, pixels without data, attributes."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from gantoolkit.data.attributes import Attributes, read_attributes
from gantoolkit.data.encoding import Encoding
from gantoolkit.data.georeference import Georeference
from gantoolkit.data.images import check_pixel_count
from gantoolkit.data.notes import TRANSPARENT_PIXELS, Note
from gantoolkit.data.pixels import DecodedImage, resize_pixels
from gantoolkit.data.writing import holds_opacity, holds_pages, stored_dtype

__all__ = [
    "ImageOptions",
    "attributes_of_translation",
    "finish_translation",
    "nodata_value",
    "resize_image",
    "resized_size",
]

_OPAQUE = 255


@dataclass(frozen=True)
class ImageOptions:
    """How images are translated.

    Args:
        resize: Length in pixels to which each image's shorter side is resized first.
        keep_alpha: Whether translations have the transparency of their images.
        max_pixels: The largest number of pixels of an image; `MAX_PIXELS` by default.
    """

    resize: int | None = None
    keep_alpha: bool = False
    max_pixels: int | None = None


def resized_size(size: tuple[int, int], shorter_side: int | None) -> tuple[int, int]:
    """The width and height of an image whose shorter side is resized to a length; None keeps the size."""
    if shorter_side is None:
        return size
    width, height = (max(1, round(side * shorter_side / min(size))) for side in size)
    return width, height


def resize_image(name: str, image: DecodedImage, encoding: Encoding, options: ImageOptions) -> DecodedImage:
    """Resize an image as the options say: its pixels and opacity as its domain is resized; no pixel without data is mixed.

    Raises:
        TooManyPixelsError: When the new size has more pixels than the options allow.
    """
    size = (image.pixels.shape[1], image.pixels.shape[0])
    new_size = resized_size(size, options.resize)
    check_pixel_count(name, *new_size, options.max_pixels)
    if new_size == size:
        return image
    opacity = Encoding(channels=1, resample=encoding.resample)
    return replace(
        image,
        pixels=resize_pixels(image.pixels, new_size, encoding),
        alpha=None if image.alpha is None else resize_pixels(image.alpha[..., None], new_size, opacity)[..., 0],
        nodata=None if image.nodata is None else _resize_mask(image.nodata, new_size),
    )


def finish_translation(
    pixels: np.ndarray, image: DecodedImage, source: Encoding, target: Encoding, path: Path, options: ImageOptions
) -> tuple[np.ndarray, tuple[Note, ...]]:
    """Give a translation what its image holds besides colors.

    Args:
        pixels: The translation (H, W, C).
        image: The image, of the same size.
        source, target: The encodings of image and translation.
        path: The file to write, whose format may not hold everything.
        options: Whether to keep the transparency.

    Returns:
        The values to write: (H, W, C), or (H, W, C + 1) with the opacity as the last channel. And the notes of the image,
        and on what the translation does not hold.
    """
    notes = [note for note in image.notes if note != TRANSPARENT_PIXELS]
    if image.nodata is not None:
        value = nodata_value(source, target, path)
        if value is not None:
            pixels = _mark_nodata(pixels, image.nodata, value, target, stored_dtype(path, target))
        elif image.nodata.any():
            notes.append(Note("has pixels without data, for which its translation has no value", passed_over=True))
    if image.alpha is not None:
        if not options.keep_alpha:
            remedy = _suggest_opacity(path, target)
            notes.append(Note(f"has transparent pixels, which are opaque in its translation{remedy}"))
        elif holds_opacity(path, target):
            pixels = _add_opacity(pixels, image.alpha)
        else:
            notes.append(Note("has transparent pixels, which the format of its translation does not hold", True))
    return pixels, tuple(notes)


def _suggest_opacity(path: Path, target: Encoding) -> str:
    """The options with which a translation has the opacity of its image, if a format holds it."""
    if holds_opacity(path, target):
        return "; --keep-alpha keeps them"
    return "; --keep-alpha with --form png keeps them" if holds_opacity(path.with_suffix(".png"), target) else ""


def nodata_value(source: Encoding, target: Encoding, path: Path) -> float | None:
    """The value of pixels without data in a translation.

    It is the one that the target domain defines, or else that of the source domain. None if the source domain defines none,
    or if the values in the file, of a format known by its suffix, cannot be that one.
    """
    if source.nodata is None:
        return None
    value = float(source.nodata if target.nodata is None else target.nodata)
    dtype = stored_dtype(path, target)
    if dtype.kind == "f":
        return value if math.isnan(value) or abs(value) <= np.finfo(dtype).max else None
    limits = np.iinfo(dtype)
    return value if value.is_integer() and limits.min <= value <= limits.max else None


def attributes_of_translation(
    path: Path, size: tuple[int, int], source: Encoding, target: Encoding, target_path: Path, options: ImageOptions
) -> tuple[Attributes, tuple[Note, ...]]:
    """The attributes of a file for its translation, and what the format of the translation does not hold.

    Args:
        path: The file.
        size: Width and height of the upright image before it is resized.
        source, target: The encodings of image and translation.
        target_path: The file to write.
        options: How the image is resized.
    """
    attributes = read_attributes(path, source)
    georeference, notes = attributes.georeference, []
    if georeference.locates and not holds_pages(target_path):
        notes.append(Note("has a georeference, which only a TIFF file holds; --form tif keeps it", passed_over=True))
    elif georeference.locates and attributes.is_turned:
        notes.append(Note("has a georeference, which does not fit once its orientation is applied", passed_over=True))
        georeference = Georeference(nodata=georeference.nodata)
    if source.bits and _is_number(georeference.nodata):  # reading a range of values notes it
        setting = source.name_setting("nodata")
        notes.append(Note(f"states a value of pixels without data, which {setting} does not name", passed_over=True))
    value = nodata_value(source, target, target_path)
    attributes = replace(
        attributes,
        profile=b"" if target.is_picture else attributes.profile,  # pictures are sRGB
        georeference=replace(georeference, nodata="" if value is None else f"{value:.17g}"),
    )
    return attributes.resized(size, resized_size(size, options.resize)), tuple(notes)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _mark_nodata(pixels: np.ndarray, mask: np.ndarray, value: float, encoding: Encoding, dtype: np.dtype) -> np.ndarray:
    """Set the pixels without data to their value. Those with data that happen to have it get the next value of the dtype."""
    inward = encoding.high if value <= encoding.low else encoding.low
    if dtype.kind == "f":
        is_equal, neighbor = pixels == dtype.type(value), np.nextafter(dtype.type(value), dtype.type(inward))
    else:
        is_equal, neighbor = np.rint(pixels) == value, value + np.sign(inward - value)
    marked = np.where(is_equal, encoding.dtype.type(neighbor), pixels)
    marked[mask] = value
    return marked


def _add_opacity(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Append the opacity as a channel, scaled to the levels of the pixels."""
    scale = np.iinfo(pixels.dtype).max // _OPAQUE
    return np.concatenate([pixels, (alpha.astype(pixels.dtype) * scale)[..., None]], axis=2)


def _resize_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.asarray(Image.fromarray(mask.astype(np.uint8)).resize(size, Image.Resampling.NEAREST)).astype(bool)

"""The values of an image file, converted to what its domain holds: 8 or 16 bits, or a range of values."""

import math
from dataclasses import dataclass, replace

import numpy as np

from gantoolkit.data.encoding import Encoding
from gantoolkit.data.images import check_memory, check_pixel_count
from gantoolkit.data.notes import FEW_LEVELS, TRANSPARENT_PIXELS, Note
from gantoolkit.errors import DataError

__all__ = ["DecodedImage", "Samples", "check_shape", "fit_samples", "has_few_levels"]

_LUMINANCE = np.array([299, 587, 114]) / 1000  # ITU-R BT.601, as in Pillow


@dataclass(frozen=True)
class DecodedImage:
    """An image as it was read from a file.

    Args:
        pixels: The values (H, W, C) of the encoding's dtype.
        alpha: The opacity (H, W) of each pixel as uint8, if the file has transparent pixels and the encoding has no channel for
            them; otherwise None.
        nodata: Whether a pixel has no data (H, W), as bool, if the encoding defines a value for that; otherwise None.
        notes: What the user should know about how the file was read.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    nodata: np.ndarray | None = None
    notes: tuple[Note, ...] = ()

    def with_note(self, note: Note) -> "DecodedImage":
        """The same image with one more note."""
        return replace(self, notes=(*self.notes, note))


@dataclass(frozen=True)
class Samples:
    """The values in a file.

    Args:
        values: The values (H, W) or (H, W, C).
        bits: Their bit depth, if they are levels.
        alpha: Whether the last channel is the opacity.
        premultiplied: Whether the other channels are multiplied by it.
        notes: How they were read.
        declared_nodata: The value of pixels without data that the file states, as text; empty if it states none.
    """

    values: np.ndarray
    bits: int
    alpha: bool = False
    premultiplied: bool = False
    notes: tuple[Note, ...] = ()
    declared_nodata: str = ""

    @classmethod
    def of(cls, values: np.ndarray) -> "Samples":
        """The samples of an array, whose dtype is their bit depth."""
        return cls(values, 8 * values.dtype.itemsize)


def fit_samples(name: object, samples: Samples, encoding: Encoding) -> DecodedImage:
    """Convert the values of a file to an encoding.

    With levels, gray and color are converted to each other. With 4 channels, what has no opacity is opaque; with 1 or 3,
    transparent pixels are blended with white.

    Args:
        name: The name of the image in error messages.

    Raises:
        DataError: When the channels or values do not match the encoding.
    """
    values = samples.values
    _check_channels(name, values.shape, values.dtype, encoding, bits=samples.bits, alpha=samples.alpha)
    if not encoding.bits:
        return _fit_range(name, samples, encoding)
    decoded = _fit_levels(name, samples, encoding)
    return decoded.with_note(FEW_LEVELS) if samples.bits == 16 and has_few_levels(decoded.pixels, encoding) else decoded


def has_few_levels(pixels: np.ndarray, encoding: Encoding) -> bool:
    """Whether the colors of an image are all below an eighth of white, as those of 12-bit cameras in 16-bit files are."""
    return encoding.bits == 8 and bool(pixels[..., :3].max() < encoding.high / 8)


def check_shape(
    name: object,
    shape: tuple[int, ...],
    dtype: np.dtype,
    encoding: Encoding,
    *,
    bits: int | None = None,
    alpha: bool = False,
    max_pixels: int | None = None,
) -> None:
    """Check that values of a shape can be converted to an encoding, before they are read.

    Args:
        bits: The bit depth of the values, if it is not that of the dtype.
        alpha: Whether the last channel is the opacity.

    Raises:
        DataError: When they cannot, or have too many pixels.
    """
    channels = _check_channels(name, shape, dtype, encoding, bits=bits, alpha=alpha)
    check_pixel_count(name, shape[1], shape[0], max_pixels)
    check_memory(name, shape[1], shape[0], channels * dtype.itemsize + encoding.bytes_per_pixel)


def _check_channels(
    name: object, shape: tuple[int, ...], dtype: np.dtype, encoding: Encoding, *, bits: int | None, alpha: bool
) -> int:
    """The number of channels of a shape, which an encoding has or which can be converted to it."""
    if len(shape) not in (2, 3) or 0 in shape:
        raise DataError(f"{name}: contains an array {shape}; an image is (height, width) or (height, width, channels)")
    channels = shape[2] if len(shape) == 3 else 1
    convertible = bool(encoding.bits) and channels - alpha in (1, 3) and encoding.channels in (1, 3, 4)
    if channels != encoding.channels and not convertible:
        raise DataError(
            f"{name}: holds {_describe_bands(channels, dtype, bits)}; images of its domain are {encoding}; a recipe with "
            f"{encoding.describe_settings(channels, dtype, bits)} reads it"
        )
    return channels


def _fit_levels(name: object, samples: Samples, encoding: Encoding) -> DecodedImage:
    values, bits = np.atleast_3d(samples.values), samples.bits
    if values.dtype.kind != "u" or bits > 16:
        bands = _describe_bands(values.shape[2], values.dtype, None)
        raise DataError(
            f"{name}: holds {bands}, whose type does not define which value is white; "
            f"a recipe with {encoding.describe_settings(values.shape[2], values.dtype)} reads it"
        )
    if bits != encoding.bits:
        values = _scale_levels(values, (1 << bits) - 1, int(encoding.high))
    opacity = values[..., -1:] if samples.alpha else None
    if opacity is not None and samples.premultiplied:
        values = _divide_by_opacity(values, opacity, encoding.high)
    if values.shape[2] == encoding.channels:
        return DecodedImage(values.astype(encoding.dtype), notes=samples.notes)
    colors = values if opacity is None else values[..., :-1]
    if encoding.channels == 4:
        opacity = np.full_like(colors[..., :1], encoding.high) if opacity is None else opacity
        fitted = np.concatenate([_convert_colors(colors, 3), opacity], axis=2)
        return DecodedImage(fitted.astype(encoding.dtype), notes=samples.notes)
    if opacity is None or opacity.min() == encoding.high:
        return DecodedImage(_convert_colors(colors, encoding.channels).astype(encoding.dtype), notes=samples.notes)
    share = opacity / encoding.high
    blended = np.rint(colors * share + encoding.high * (1 - share))
    return DecodedImage(
        _convert_colors(blended, encoding.channels).astype(encoding.dtype),
        alpha=np.rint(255 * share[..., 0]).astype(np.uint8),
        notes=(*samples.notes, TRANSPARENT_PIXELS),
    )


def _scale_levels(values: np.ndarray, white: int, new_white: int) -> np.ndarray:
    """Scale levels, rounded; none lies halfway between two, because both whites are odd."""
    return (values.astype(np.uint32) * (2 * new_white) + white) // (2 * white)


def _convert_colors(values: np.ndarray, channels: int) -> np.ndarray:
    if values.shape[2] == channels:
        return values
    return values.repeat(3, axis=2) if channels == 3 else np.rint(values.astype(np.float64) @ _LUMINANCE)[..., None]


def _divide_by_opacity(values: np.ndarray, opacity: np.ndarray, white: float) -> np.ndarray:
    colors = np.rint(values[..., :-1] * (white / np.maximum(opacity, 1))).clip(0, white)
    return np.concatenate([colors, opacity], axis=2)


def _fit_range(name: object, samples: Samples, encoding: Encoding) -> DecodedImage:
    values = np.atleast_3d(samples.values)
    if values.dtype.kind not in "uif":
        raise DataError(f"{name}: has dtype {values.dtype}; an image has integers or floats")
    missing = _find_nodata(values, encoding)
    is_unnamed = _has_unnamed_nodata(values, missing, samples.declared_nodata)
    with np.errstate(over="ignore"):  # what float32 cannot represent becomes infinite, which is outside of the range
        values = values.astype(np.float32)
    if missing is not None:
        values[missing] = encoding.low
    if encoding.clip:
        np.clip(values, encoding.low, encoding.high, out=values)
    low, high = values.min(), values.max()
    if not (np.float32(encoding.low) <= low and high <= np.float32(encoding.high)):  # also catches NaN
        raise DataError(
            f"{name}: {_describe_values(values if missing is None else values[~missing], encoding, samples.declared_nodata)}"
        )
    notes = samples.notes
    if is_unnamed:
        setting = encoding.name_setting("nodata")
        notes += (Note(f"states a value of pixels without data, which {setting} does not name", passed_over=True),)
    return DecodedImage(values, nodata=None if missing is None else np.any(missing, axis=2), notes=notes)


def _find_nodata(values: np.ndarray, encoding: Encoding) -> np.ndarray | None:
    if encoding.nodata is None:
        return None
    if encoding.nodata == "nan":
        return np.isnan(values)
    with np.errstate(over="ignore"):
        return values == encoding.nodata


def _has_unnamed_nodata(values: np.ndarray, missing: np.ndarray | None, declared: str) -> bool:
    """Whether a pixel has the value of pixels without data that its file declares, and the recipe does not name it."""
    if not declared:
        return False
    stated = float(declared)
    with np.errstate(over="ignore"):
        value = np.float32(stated) if values.dtype == np.float32 else stated
    is_stated = np.isnan(values) if math.isnan(stated) else values == value
    return bool((is_stated if missing is None else is_stated & ~missing).any())


def _describe_values(values: np.ndarray, encoding: Encoding, declared_nodata: str) -> str:
    """What is outside of the range, and which settings read it."""
    numbers = values[~np.isnan(values)]
    low, high = (numbers.min(), numbers.max()) if numbers.size else (encoding.low, encoding.high)
    problems, hints = [], []
    if numbers.size < values.size:
        problems.append("NaN values")
        if encoding.nodata is None:
            hints.append(f'{encoding.name_setting("nodata")} = "nan" reads NaN as pixels without data')
        else:
            hints.append(f"NaN is not the value of pixels without data, {encoding.nodata:g}")
    if not (np.float32(encoding.low) <= low and high <= np.float32(encoding.high)):
        problems.append(f"values from {low:g} to {high:g}")
        hints.append(f"{encoding.name_setting('clip')} = true moves values to the nearest end of the range")
        if encoding.nodata is None and (declared_nodata or numbers.size == values.size):
            nodata = encoding.name_setting("nodata")
            stated = f"{nodata} = {declared_nodata} is the value of pixels without data that the file states"
            hints.append(stated if declared_nodata else f"{nodata} names a value of pixels without data")
    return (
        f"contains {' and '.join(problems)}; the range of its domain is {encoding.low:g} to {encoding.high:g}; "
        f"{', and '.join(dict.fromkeys(hints))}"
    )


def _describe_bands(channels: int, dtype: np.dtype, bits: int | None) -> str:
    values = f"{bits} bits" if bits and dtype.kind == "u" and bits != 8 * dtype.itemsize else str(dtype)
    return f"{channels} band{'s' if channels > 1 else ''} of {values}"

"""The frames of files that Pillow opens: animations, pictures for each eye, pages of a TIFF file."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from gantoolkit.data.encoding import Encoding
from gantoolkit.data.images import ImageContent, check_memory
from gantoolkit.data.notes import EXTRA_BANDS, FEW_LEVELS
from gantoolkit.data.orientation import read_orientation, turn_array
from gantoolkit.data.pictures import convert_picture, decode
from gantoolkit.data.profiles import note_unused_profile
from gantoolkit.data.samples import decode_16_bit_png, find_scale, is_16_bit_color_png, read_samples
from gantoolkit.data.values import DecodedImage, Samples, fit_samples, has_few_levels
from gantoolkit.errors import DataError

__all__ = ["check_page", "convert_decoded", "is_animated", "list_frames", "read_frame"]

_BYTES_OF_MODE = {"I": 4, "F": 4, "I;16": 2, "I;16B": 2}
_BLENDING_BYTES = 13
"""Three layers of 4 bytes and the opacity."""


def list_frames(image: Image.Image) -> Sequence[int]:
    """The indices of the frames of an open file that are images of their own. Phones add previews and depth as frames."""
    if image.format == "MPO":
        entries = image.mpinfo[0xB002]  # type: ignore[attr-defined]
        kinds = [entry["Attribute"]["MPType"] for entry in entries]
        return [index for index, kind in enumerate(kinds) if index == 0 or kind.startswith("Multi-Frame")]
    return range(getattr(image, "n_frames", 1))


def check_page(name: object, page: int, count: int) -> None:
    """Check that a file with `count` pages has a page.

    Raises:
        DataError: When it does not.
    """
    if not 0 <= page < count:
        raise DataError(f"{name}: has {count} page{'s' if count > 1 else ''}; there is no page {page + 1}")


def is_animated(image: Image.Image) -> bool:
    """Whether an open file has several frames that are images of their own. Pillow may have to read a part of the second."""
    if image.format == "MPO":
        return len(list_frames(image)) > 1
    try:
        return getattr(image, "is_animated", False)
    except Exception:  # a damaged second frame does not affect the first
        return True


def read_frame(file: Path | ImageContent, image: Image.Image, frame: int, encoding: Encoding) -> DecodedImage:
    """Read a frame of an open file.

    Raises:
        UnknownFormatError: When Pillow does not read samples of this kind.
        DataError: When the channels or values do not match the encoding, or the memory does not suffice.
    """
    if image.tell() != frame:
        image.seek(frame)
    check_memory(file, *image.size, _decoded_bytes(image, encoding))
    if not encoding.is_picture and is_16_bit_color_png(image):
        values = turn_array(decode_16_bit_png(file), read_orientation(image))
        alpha = values.ndim == 3 and values.shape[2] in (2, 4)
        notes = note_unused_profile(image.info.get("icc_profile"), "RGB") if encoding.bits else ()
        samples = Samples(values, 16, alpha=alpha, notes=notes)
        return fit_samples(file, samples, encoding)
    factor = 1 if encoding.bits else find_scale(file, image)
    has_extra_bands, has_16_bits = _has_extra_bands(image), _has_16_bits(image)
    decoded = convert_decoded(file, decode(image), encoding, factor)
    if has_extra_bands:
        decoded = decoded.with_note(EXTRA_BANDS)
    return decoded.with_note(FEW_LEVELS) if has_16_bits and has_few_levels(decoded.pixels, encoding) else decoded


def convert_decoded(name: object, image: Image.Image, encoding: Encoding, factor: int = 1) -> DecodedImage:
    """Convert a decoded image to an encoding.

    Args:
        name: The name of the image in error messages.
        factor: The factor by which Pillow multiplied its values.

    Raises:
        DataError: When the channels or values do not match the encoding.
    """
    if encoding.is_picture:
        try:
            picture = convert_picture(image, encoding)
        except DataError as error:
            raise DataError(f"{name}: {error}") from error
        return DecodedImage(np.atleast_3d(np.asarray(picture.image)), picture.alpha, notes=picture.notes)
    samples = read_samples(name, image, encoding)
    if factor != 1:
        samples = replace(samples, values=samples.values // factor)
    return fit_samples(name, samples, encoding)


def _has_extra_bands(image: Image.Image) -> bool:
    """Whether an open TIFF file has more bands than those that Pillow reads."""
    return getattr(image, "tag_v2", {}).get(ExifTags.Base.SamplesPerPixel, 1) > len(image.getbands())


def _has_16_bits(image: Image.Image) -> bool:
    """Whether the levels of an open file have 16 bits. Pillow keeps the upper 8 bits of colors."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        return True
    if 16 in getattr(image, "tag_v2", {}).get(ExifTags.Base.BitsPerSample, ()):
        return True
    return any(";16" in str(part.args) or "65535" in str(part.args) for part in getattr(image, "tile", ()))


def _decoded_bytes(image: Image.Image, encoding: Encoding) -> int:
    """Bytes for each pixel that Pillow's image, its conversions and its copies as an array take at a time."""
    stored = 4 if len(image.getbands()) > 1 else _BYTES_OF_MODE.get(image.mode, 1)
    converted = (
        0 if image.mode == {1: "L", 3: "RGB", 4: "RGBA"}.get(encoding.channels) else min(4, encoding.channels + 1)
    )
    blended = _BLENDING_BYTES if encoding.is_picture and image.has_transparency_data else 0
    return stored + max(converted, blended) + 2 * encoding.bytes_per_pixel

"""Image files as arrays of values: 8 and 16 bits, floats, any number of channels; PNG, TIFF, .npy and all that Pillow reads.

Values are kept as they are in the file. For a domain of 8-bit or 16-bit images, other bit depths are scaled, so that white
stays white. For a domain with a range of values, values outside the range are rejected, unless its settings say otherwise. Gray
or RGB images of 8 bits are read as `gantoolkit.data.pictures` describes.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from gantoolkit.data.arrays import read_array, read_shape
from gantoolkit.data.encoding import Encoding
from gantoolkit.data.formats import HEADER_BYTES, detect_format
from gantoolkit.data.frames import check_page, convert_decoded, is_animated, list_frames, read_frame
from gantoolkit.data.images import (
    ANY_NUMBER,
    ImageContent,
    ImageFile,
    UnknownFormatError,
    convert_read_errors,
    open_image,
    open_stream,
)
from gantoolkit.data.notes import SEVERAL_FRAMES
from gantoolkit.data.pictures import decode
from gantoolkit.data.tiff_pages import count_tiff_pages, read_tiff_page, read_tiff_pages, read_tiff_size
from gantoolkit.data.values import DecodedImage, fit_samples
from gantoolkit.errors import DataError
from gantoolkit.recipes.settings import Resample

__all__ = [
    "DecodedImage",
    "ImageSource",
    "count_pages",
    "decode_pil_image",
    "read_decoded_image",
    "read_image",
    "read_pages",
    "read_pixel_size",
    "read_pixels",
    "resize_pixels",
]

ImageSource = str | os.PathLike[str] | ImageFile | ImageContent
"""A file, one half of a file, or the content of a file in memory."""

_RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "nearest": Image.Resampling.NEAREST}


def read_decoded_image(
    source: ImageSource, encoding: Encoding, *, page: int = 0, max_pixels: int | None = None
) -> DecodedImage:
    """Read an image file, or one half of it, with all that is known about its pixels.

    Args:
        page: The page or frame of the file.
        max_pixels: The largest number of pixels; `MAX_PIXELS` by default.

    Raises:
        DataError: When the file cannot be read, has no such page, or its channels or values do not match the encoding.
    """
    file, half = _resolve(source)
    with convert_read_errors(file):
        match _detect_format(file):
            case "npy":
                check_page(file, page, 1)
                samples = read_array(file, encoding, max_pixels)
                decoded = fit_samples(file, samples, encoding)
            case "tiff":
                decoded = read_tiff_page(file, encoding, page, max_pixels)
            case _:
                decoded = _read_frames(file, encoding, page, max_pixels)
    return decoded if half is None else _crop(decoded, half)


def read_pages(source: ImageSource, encoding: Encoding, *, max_pixels: int | None = None) -> Iterator[DecodedImage]:
    """Read all pages or frames of a file, or one half of each, one at a time, as `read_decoded_image` reads each.

    A TIFF file is opened once.

    Raises:
        DataError: As `read_decoded_image`.
    """
    file, half = _resolve(source)
    with convert_read_errors(file):
        if _detect_format(file) == "tiff":
            for decoded in read_tiff_pages(file, encoding, max_pixels):
                yield decoded if half is None else _crop(decoded, half)
            return
    for page in range(count_pages(file, encoding)):
        yield read_decoded_image(source, encoding, page=page, max_pixels=max_pixels)


def read_pixels(source: ImageSource, encoding: Encoding, *, page: int = 0, max_pixels: int | None = None) -> np.ndarray:
    """Read an image file, or one half of it, as values (H, W, C) of the encoding's dtype.

    Args:
        page, max_pixels: As in `read_decoded_image`.

    Raises:
        DataError: As `read_decoded_image`.
    """
    return read_decoded_image(source, encoding, page=page, max_pixels=max_pixels).pixels


def read_image(source: ImageSource, channels: int = 3, *, max_pixels: int | None = None) -> Image.Image:
    """Read an image file, or one half of it, as an 8-bit image of mode `L` (1 channel) or `RGB` (3).

    Raises:
        DataError: As `read_decoded_image`.
    """
    pixels = read_pixels(source, Encoding(channels), max_pixels=max_pixels)
    return Image.fromarray(pixels[..., 0] if channels == 1 else pixels)


def decode_pil_image(image: Image.Image, encoding: Encoding, *, name: str = "the image") -> DecodedImage:
    """Read a PIL image as the same image is read from a file.

    Args:
        name: The name of the image in error messages.

    Raises:
        DataError: As `read_decoded_image`.
    """
    with convert_read_errors(ImageContent(b"", name)):
        try:
            upright = decode(image)
        except UnknownFormatError as error:
            raise DataError(f"{name}: {error}") from error
        return convert_decoded(name, upright, encoding)


def count_pages(source: ImageSource, encoding: Encoding) -> int:
    """Count the images in a file, pages or frames, without decoding them.

    Raises:
        DataError: When the header cannot be read.
    """
    file, _ = _resolve(source)
    with convert_read_errors(file):
        kind = _detect_format(file)
        if kind == "npy":
            return 1
        if kind == "tiff":
            return count_tiff_pages(file, encoding)
        with open_image(file, ANY_NUMBER) as image:
            return len(list_frames(image))


def read_pixel_size(source: ImageSource, encoding: Encoding, *, max_pixels: int | None = None) -> tuple[int, int]:
    """Read the width and height of the first page from a file's header, before any EXIF rotation.

    Raises:
        DataError: As `read_pixels`, as far as the header shows it.
    """
    file, _ = _resolve(source)
    with convert_read_errors(file):
        kind = _detect_format(file)
        if kind == "npy":
            height, width = read_shape(file)[0][:2]
            return width, height
        if kind == "tiff":
            return read_tiff_size(file, encoding, max_pixels)
        with open_image(file, max_pixels) as image:
            return image.size


def resize_pixels(
    pixels: np.ndarray, size: tuple[int, int], encoding: Encoding, resample: Resample | None = None
) -> np.ndarray:
    """Resize values (H, W, C) to a width and height, clipped to the encoding's range.

    Args:
        resample: How to resize; by default, as the encoding says.
    """
    method = _RESAMPLING[resample or encoding.resample]
    if encoding.is_picture:
        flat = pixels[..., 0] if pixels.shape[2] == 1 else pixels
        return np.atleast_3d(np.asarray(Image.fromarray(flat).resize(size, method)))
    planes = [Image.fromarray(plane.astype(np.float32)).resize(size, method) for plane in np.moveaxis(pixels, 2, 0)]
    values = np.stack([np.asarray(plane) for plane in planes], axis=2).clip(encoding.low, encoding.high)
    return (np.rint(values) if encoding.bits else values).astype(encoding.dtype)


def _resolve(source: ImageSource) -> tuple[Path | ImageContent, ImageFile | None]:
    """The file, and the half of it that is read."""
    if isinstance(source, ImageContent):
        return source, None
    file = ImageFile.of(source)
    return file.path, None if file.half is None else file


def _detect_format(file: Path | ImageContent) -> str:
    with open_stream(file) as stream:
        return detect_format(stream.read(HEADER_BYTES))


def _crop(decoded: DecodedImage, half: ImageFile) -> DecodedImage:
    columns = half.columns(decoded.pixels.shape[1])
    alpha, nodata = (None if plane is None else plane[:, columns] for plane in (decoded.alpha, decoded.nodata))
    return DecodedImage(decoded.pixels[:, columns], alpha, nodata, decoded.notes)


def _read_frames(file: Path | ImageContent, encoding: Encoding, page: int, max_pixels: int | None) -> DecodedImage:
    with open_image(file, max_pixels) as image:
        frame = 0
        if page:
            frames = list_frames(image)
            check_page(file, page, len(frames))
            frame = frames[page]
        decoded = read_frame(file, image, frame, encoding)
        return decoded.with_note(SEVERAL_FRAMES) if page == 0 and is_animated(image) else decoded

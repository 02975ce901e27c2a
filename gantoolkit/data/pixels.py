"""Image files as arrays of values: 8 and 16 bits, floats, any number of channels; PNG, TIFF, .npy and all that Pillow reads.

Values are kept as they are in the file. For a domain of 8-bit or 16-bit images, other bit depths are scaled, so that white
stays white. For a domain with a range of values, values outside the range are rejected, unless its settings say otherwise. Gray
or RGB images of 8 bits are read as `gantoolkit.data.pictures` describes.
"""

import importlib.util
import os
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from gantoolkit.data.arrays import read_array, read_shape
from gantoolkit.data.encoding import Encoding
from gantoolkit.data.formats import HEADER_BYTES, detect_format
from gantoolkit.data.frames import convert_decoded, is_animated, list_frames, read_frame
from gantoolkit.data.images import (
    ImageContent,
    ImageFile,
    UnknownFormatError,
    convert_read_errors,
    open_image,
    open_stream,
)
from gantoolkit.data.notes import SEVERAL_FRAMES, SEVERAL_PAGES, Note
from gantoolkit.data.pictures import decode
from gantoolkit.data.tiff import TiffImages, describes_axes, hides_images, open_tiff
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

_ANY_NUMBER = 1 << 60
"""More pixels than any file has, for what is not decoded."""
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
                _check_page(file, page, 1)
                samples = read_array(file, encoding, max_pixels)
                decoded = fit_samples(file, samples, encoding)
            case "tiff":
                decoded = _read_tiff(file, encoding, page, max_pixels)
            case _:
                decoded = _read_frames(file, encoding, page, max_pixels)
    return decoded if half is None else _crop(decoded, half)


def read_pages(source: ImageSource, encoding: Encoding, *, max_pixels: int | None = None) -> Iterator[DecodedImage]:
    """Read all pages or frames of a file, one at a time, as `read_decoded_image` reads each. A TIFF file is opened once.

    Raises:
        DataError: As `read_decoded_image`.
    """
    file, _ = _resolve(source)
    with convert_read_errors(file):
        if _detect_format(file) == "tiff":
            yield from _read_tiff_pages(file, encoding, max_pixels)
            return
    for page in range(count_pages(file, encoding)):
        yield read_decoded_image(file, encoding, page=page, max_pixels=max_pixels)


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
            return _count_images(file, encoding)
        with open_image(file, _ANY_NUMBER) as image:
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
        if kind == "tiff" and not encoding.is_picture:
            with open_tiff(file, max_pixels) as images:
                return images.size
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


def _read_tiff(file: Path | ImageContent, encoding: Encoding, page: int, max_pixels: int | None) -> DecodedImage:
    if encoding.is_picture:
        # Pillow refuses files with other channels and types, which tifffile reads.
        with suppress(UnknownFormatError), open_image(file, max_pixels) as image:
            directory, count = 0, 1
            if _is_stack(image):
                directory, count = _find_directory(file, image, page, max_pixels)
            _check_page(file, page, count)
            if directory is not None:
                return _add_note(read_frame(file, image, directory, encoding), SEVERAL_PAGES, page == 0 and count > 1)
    with open_tiff(file, max_pixels) as images:
        _check_page(file, page, len(images))
        directory, count = images.find_directory(page), len(images)
        samples, description = images.read(page, encoding), images.describe(page)
    if samples is not None:
        decoded = fit_samples(file, samples, encoding)
    else:
        try:
            with open_image(file, max_pixels) as image:
                decoded = read_frame(file, image, directory or 0, encoding)
        except UnknownFormatError as error:
            raise DataError(f"{file}: holds {description}, which is not supported; save it as RGB or gray") from error
    return _add_note(decoded, SEVERAL_PAGES, page == 0 and count > 1)


def _read_tiff_pages(file: Path | ImageContent, encoding: Encoding, max_pixels: int | None) -> Iterator[DecodedImage]:
    with ExitStack() as stack:
        images = stack.enter_context(open_tiff(file, max_pixels))
        image = None
        with suppress(UnknownFormatError):
            image = stack.enter_context(open_image(file, max_pixels))
        for page in range(len(images)):
            yield _read_tiff_page(file, images, image, page, encoding)


def _read_tiff_page(
    file: Path | ImageContent, images: TiffImages, image: Image.Image | None, page: int, encoding: Encoding
) -> DecodedImage:
    """Read a page of a TIFF file that tifffile has opened, and Pillow too if it reads the file."""
    directory = images.find_directory(page)
    if encoding.is_picture and image is not None and directory is not None:
        with suppress(UnknownFormatError):
            return read_frame(file, image, directory, encoding)
    samples = images.read(page, encoding)
    if samples is not None:
        return fit_samples(file, samples, encoding)
    if image is None:
        raise DataError(f"{file}: holds {images.describe(page)}, which is not supported; save it as RGB or gray")
    return read_frame(file, image, directory or 0, encoding)


def _find_directory(
    file: Path | ImageContent, image: Image.Image, page: int, max_pixels: int | None
) -> tuple[int | None, int]:
    """The directory of a page in a TIFF file with several, None if it has several of its own; and the number of pages."""
    if not _describes_axes(image) and importlib.util.find_spec("tifffile") is None:
        return page, len(list_frames(image))
    with open_tiff(file, max_pixels) as images:
        _check_page(file, page, len(images))
        return images.find_directory(page), len(images)


def _is_stack(image: Image.Image) -> bool:
    """Whether an open TIFF file has several pages, or may have more than directories."""
    return getattr(image, "is_animated", False) or hides_images(_read_description(image))


def _describes_axes(image: Image.Image) -> bool:
    return describes_axes(_read_description(image))


def _read_description(image: Image.Image) -> object:
    return image.tag_v2.get(ExifTags.Base.ImageDescription)  # type: ignore[attr-defined]


def _read_frames(file: Path | ImageContent, encoding: Encoding, page: int, max_pixels: int | None) -> DecodedImage:
    with open_image(file, max_pixels) as image:
        frame = 0
        if page:
            frames = list_frames(image)
            _check_page(file, page, len(frames))
            frame = frames[page]
        decoded = read_frame(file, image, frame, encoding)
        return _add_note(decoded, SEVERAL_FRAMES, page == 0 and is_animated(image))


def _check_page(file: Path | ImageContent, page: int, count: int) -> None:
    if not 0 <= page < count:
        raise DataError(f"{file}: has {count} page{'s' if count > 1 else ''}; there is no page {page + 1}")


def _add_note(decoded: DecodedImage, note: Note, applies: bool) -> DecodedImage:
    return replace(decoded, notes=(*decoded.notes, note)) if applies else decoded


def _count_images(file: Path | ImageContent, encoding: Encoding) -> int:
    if encoding.is_picture:
        with suppress(UnknownFormatError), open_image(file, _ANY_NUMBER) as image:
            return _find_directory(file, image, 0, _ANY_NUMBER)[1] if _is_stack(image) else 1
    with open_tiff(file, _ANY_NUMBER) as images:
        return len(images)

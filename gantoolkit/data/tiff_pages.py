"""The pages of TIFF files: Pillow reads pictures, tifffile knows axes and reads all other values."""

import importlib.util
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from PIL import ExifTags, Image

from gantoolkit.data.encoding import Encoding
from gantoolkit.data.frames import check_page, list_frames, read_frame
from gantoolkit.data.images import ANY_NUMBER, ImageContent, UnknownFormatError, open_image
from gantoolkit.data.notes import SEVERAL_PAGES
from gantoolkit.data.tiff import TiffImages, describes_axes, hides_images, open_tiff
from gantoolkit.data.values import DecodedImage, fit_samples
from gantoolkit.errors import DataError

__all__ = ["count_tiff_pages", "read_tiff_page", "read_tiff_pages", "read_tiff_size"]


def read_tiff_page(
    file: Path | ImageContent, encoding: Encoding, page: int = 0, max_pixels: int | None = None
) -> DecodedImage:
    """Read a page; the first one of several has a note.

    Raises:
        DataError: As `gantoolkit.data.pixels.read_decoded_image`.
    """
    if encoding.is_picture:
        # Pillow refuses files with other channels and types, which tifffile reads.
        with suppress(UnknownFormatError), open_image(file, max_pixels) as image:
            if not _needs_tifffile(image):
                count = len(list_frames(image))
                check_page(file, page, count)
                return _note_pages(read_frame(file, image, page, encoding), page, count)
    with _open_file(file, max_pixels) as (images, image):
        check_page(file, page, len(images))
        return _note_pages(_read_page(file, images, image, page, encoding), page, len(images))


def read_tiff_pages(
    file: Path | ImageContent, encoding: Encoding, max_pixels: int | None = None
) -> Iterator[DecodedImage]:
    """Read all pages, one at a time; the file is opened once.

    Raises:
        DataError: As `gantoolkit.data.pixels.read_decoded_image`.
    """
    with _open_file(file, max_pixels) as (images, image):
        for page in range(len(images)):
            yield _read_page(file, images, image, page, encoding)


def count_tiff_pages(file: Path | ImageContent, encoding: Encoding) -> int:
    """Count the pages without decoding them.

    Raises:
        DataError: When the header cannot be read.
    """
    if encoding.is_picture:
        with suppress(UnknownFormatError), open_image(file, ANY_NUMBER) as image:
            if not _needs_tifffile(image):
                return len(list_frames(image))
    with open_tiff(file, ANY_NUMBER) as images:
        return len(images)


def read_tiff_size(file: Path | ImageContent, encoding: Encoding, max_pixels: int | None = None) -> tuple[int, int]:
    """The width and height of the first page, before any EXIF rotation.

    Raises:
        DataError: When the header cannot be read, or the page has too many pixels.
    """
    if encoding.is_picture:
        with suppress(UnknownFormatError), open_image(file, max_pixels) as image:
            if not _needs_tifffile(image):
                return image.size
    with open_tiff(file, max_pixels) as images:
        return images.size


def _needs_tifffile(image: Image.Image) -> bool:
    """Whether an open file has several pages, which may be channels of one image, or more pages than Pillow knows."""
    description = image.tag_v2.get(ExifTags.Base.ImageDescription)  # type: ignore[attr-defined]
    if not getattr(image, "is_animated", False) and not hides_images(description):
        return False
    return describes_axes(description) or importlib.util.find_spec("tifffile") is not None


@contextmanager
def _open_file(file: Path | ImageContent, max_pixels: int | None) -> Iterator[tuple[TiffImages, Image.Image | None]]:
    """Open a file with tifffile, and with Pillow too if it reads the format."""
    with ExitStack() as stack:
        images = stack.enter_context(open_tiff(file, max_pixels))
        image = None
        with suppress(UnknownFormatError):
            image = stack.enter_context(open_image(file, max_pixels))
        yield images, image


def _read_page(
    file: Path | ImageContent, images: TiffImages, image: Image.Image | None, page: int, encoding: Encoding
) -> DecodedImage:
    directory = images.find_directory(page)
    if encoding.is_picture and image is not None and directory is not None:
        with suppress(UnknownFormatError):
            return read_frame(file, image, directory, encoding)
    samples = images.read(page, encoding)
    if samples is not None:
        return fit_samples(file, samples, encoding)
    if image is not None:
        with suppress(UnknownFormatError):
            return read_frame(file, image, directory or 0, encoding)
    raise DataError(f"{file}: holds {images.describe(page)}, which is not supported; save it as RGB or gray")


def _note_pages(decoded: DecodedImage, page: int, count: int) -> DecodedImage:
    return decoded.with_note(SEVERAL_PAGES) if page == 0 and count > 1 else decoded

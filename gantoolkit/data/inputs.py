"""Images as Python programs have them: paths, contents of files, binary streams, PIL images and arrays."""

import os
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from gantoolkit.data.encoding import Encoding
from gantoolkit.data.images import ImageContent, ImageFile
from gantoolkit.data.pixels import decode_pil_image, read_decoded_image
from gantoolkit.data.values import DecodedImage, Samples, fit_samples
from gantoolkit.errors import DataError
from gantoolkit.files.atomic import is_url

__all__ = ["ImageInput", "decode_input"]

ImageInput = (
    Image.Image
    | np.ndarray
    | str
    | os.PathLike[str]
    | bytes
    | bytearray
    | memoryview
    | IO[bytes]
    | ImageFile
    | ImageContent
)
"""An image: a path, the content of a file, a binary stream such as BytesIO, a PIL image, or an array (H, W) or (H, W, C)."""


def decode_input(
    image: ImageInput, encoding: Encoding, *, page: int = 0, max_pixels: int | None = None
) -> DecodedImage:
    """Read an image of any type. A PIL image gives the same pixels as its file.

    Args:
        page: The page or frame of a file.
        max_pixels: The largest number of pixels of a file; `MAX_PIXELS` by default.

    Raises:
        DataError: When it cannot be read, is a URL, or its channels or values do not match the encoding.
    """
    if isinstance(image, Image.Image):
        return decode_pil_image(image, encoding)
    if isinstance(image, str) and is_url(image) and not Path(image).exists():
        raise DataError(f"{image}: is a URL, not a file; download it first")
    if isinstance(image, str | os.PathLike):
        return read_decoded_image(image, encoding, page=page, max_pixels=max_pixels)
    if isinstance(image, bytes | bytearray | memoryview):
        image = ImageContent(bytes(image))
    elif hasattr(image, "read"):
        image = _read_stream(image)
    if isinstance(image, ImageFile | ImageContent):
        return read_decoded_image(image, encoding, page=page, max_pixels=max_pixels)
    values = np.asarray(image)
    if values.dtype == object:
        raise DataError(
            f"the image: has the type {type(image).__name__}; pass a path, the content of a file, a PIL image or an array"
        )
    return fit_samples("the image", Samples.of(values), encoding)


def _read_stream(stream: Any) -> ImageContent:
    content = stream.read()
    if not isinstance(content, bytes):
        raise DataError("the image: is a text stream; open the file in binary mode, with open(path, 'rb')")
    name = getattr(stream, "name", None)
    return ImageContent(content, name if isinstance(name, str) else "the image")

"""Arrays in `.npy` files, whose shape is checked before memory is allocated."""

from pathlib import Path
from typing import Any

import numpy as np

from gantoolkit.data.encoding import Encoding
from gantoolkit.data.images import ImageContent, open_stream
from gantoolkit.data.values import Samples, check_shape

__all__ = ["read_array", "read_shape"]

_READ_HEADER: dict[tuple[int, int], Any] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read_shape(file: Path | ImageContent) -> tuple[tuple[int, ...], np.dtype]:
    """The shape and dtype of the array in a file.

    Raises:
        ValueError: When the file is not valid.
    """
    with open_stream(file) as stream:
        version = np.lib.format.read_magic(stream)
        if version not in _READ_HEADER:
            raise ValueError(f"version {version} of the format is not supported")
        shape, _, dtype = _READ_HEADER[version](stream)
    return shape, dtype


def read_array(file: Path | ImageContent, encoding: Encoding, max_pixels: int | None = None) -> Samples:
    """Read the array in a file.

    Raises:
        DataError: When its shape does not match the encoding.
        ValueError: When the file is not valid.
    """
    shape, dtype = read_shape(file)
    if not dtype.hasobject:  # numpy refuses it with a reason
        check_shape(file, shape, dtype, encoding, max_pixels=max_pixels)
    with open_stream(file) as stream:
        values = np.load(stream, allow_pickle=False)
    return Samples.of(values.astype(dtype.newbyteorder("="), copy=False))

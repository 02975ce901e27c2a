"""TIFF files: several pages, channels that are pages, and samples of any type.

Microscopes and ImageJ store each channel of an image as a page of its own. A page of this module is an image: pages along the
axis C of a file are its channels, and pages along all other axes (time, depth, a plain stack) are images. Thumbnails, masks and
the levels of pyramids do not count.
"""

import itertools
import logging
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gantoolkit.data.encoding import Encoding
from gantoolkit.data.images import ImageContent, check_pixel_count, open_stream
from gantoolkit.data.orientation import turn_array
from gantoolkit.data.profiles import note_unused_profile
from gantoolkit.data.values import Samples, check_shape
from gantoolkit.errors import DataError, requires_extra

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPageSeries

__all__ = ["TiffImages", "describes_axes", "hides_images", "open_tiff"]

_DIRECT = ("MINISBLACK", "MINISWHITE", "RGB")
"""Photometric interpretations of files whose samples are the values."""
_XML_START = 2000
"""The first characters of a description, in which the XML of OME begins, after comments."""
_MANY_PAGES = 1000
"""More pages, of which no description says how they belong together, are not compared with each other: it takes long."""
_REDUCED_OR_MASK = 1 | 4  # of the tag NewSubfileType
_GDAL_NODATA = 42113
_ASSOCIATED, _UNASSOCIATED = 1, 2  # values of the tag ExtraSamples

# tifffile logs irregularities of files; without a handler, they are printed.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


def describes_axes(description: object) -> bool:
    """Whether the description of a TIFF file, as a tag, says which of its pages are channels."""
    return isinstance(description, str) and (
        description.startswith(("ImageJ=", '{"shape"')) or "<OME" in description[:_XML_START]
    )


def hides_images(description: object) -> bool:
    """Whether a TIFF file may hold more images than directories, according to its description."""
    if not isinstance(description, str):
        return False
    count = re.search(r"^images=(\d+)", description, re.MULTILINE) if description.startswith("ImageJ=") else None
    return (count is not None and int(count[1]) > 1) or (
        description.startswith('{"shape"') and '"truncated"' in description
    )


@contextmanager
def open_tiff(source: Path | ImageContent, max_pixels: int | None = None) -> Iterator["TiffImages"]:
    """Open a TIFF file; its header is read.

    Raises:
        DataError: When tifffile is not installed, or an image has too many pixels.
    """
    with requires_extra("depth", f"{source}: this TIFF file", DataError):
        from tifffile import TiffFile
    with open_stream(source) as stream, TiffFile(stream, name=str(source), _multifile=False) as file:
        yield TiffImages(source, file, max_pixels)


class TiffImages:
    """The images in an open TIFF file.

    Args:
        source: The file, for messages.
        file: The file as tifffile opens it.
        max_pixels: The largest number of pixels of an image.
    """

    def __init__(self, source: Path | ImageContent, file: "TiffFile", max_pixels: int | None = None) -> None:
        self.source = source
        self.max_pixels = max_pixels
        first: Any = file.pages.first
        check_pixel_count(source, first.imagewidth, first.imagelength, max_pixels)
        self._file = file
        self._stacks: list[_Stack] | None = [_Stack.of_directory(first)]
        if file.pages.is_multipage or hides_images(first.description):
            self._stacks = _find_stacks(file)

    @property
    def size(self) -> tuple[int, int]:
        """The width and height of the first image, before any EXIF rotation."""
        keyframe = self._find(0)[0].keyframe
        return keyframe.imagewidth, keyframe.imagelength

    def __len__(self) -> int:
        """The number of images."""
        return len(self._file.pages) if self._stacks is None else sum(len(stack) for stack in self._stacks)

    def find_directory(self, page: int) -> int | None:
        """The index of the only directory that holds an image, as Pillow counts frames; None if there are several."""
        stack, page = self._find(page)
        return stack.find_directory(page)

    def read(self, page: int, encoding: Encoding) -> Samples | None:
        """Read the samples of an image; None if Pillow has to look up or convert them.

        Raises:
            DataError: When its channels do not match the encoding.
        """
        stack, page = self._find(page)
        keyframe = stack.keyframe
        bits = keyframe.bitspersample
        has_values = keyframe.photometric.name in _DIRECT and (bits >= 8 or not encoding.bits)
        if not has_values and stack.find_directory(page) is not None:
            return None
        extra = keyframe.extrasamples[-1] if keyframe.extrasamples and stack.channels == 1 else 0
        alpha = extra in (_ASSOCIATED, _UNASSOCIATED) and keyframe.samplesperpixel in (2, 4)
        shape = (keyframe.imagelength, keyframe.imagewidth, stack.channels * keyframe.samplesperpixel)
        check_shape(self.source, shape, keyframe.dtype, encoding, bits=bits, alpha=alpha, max_pixels=self.max_pixels)
        values = np.concatenate([self._read_plane(stack, plane) for plane in stack.find_planes(page)], axis=2)
        values = values.astype(np.uint8) if values.dtype == bool else values
        if keyframe.photometric.name == "MINISWHITE" and values.dtype.kind == "u":
            values = (1 << bits) - 1 - values
        orientation = keyframe.tags.get("Orientation")
        values = turn_array(values, getattr(orientation, "value", None))
        colors = values.shape[2] - alpha
        notes = note_unused_profile(keyframe.iccprofile, "L" if colors == 1 else "RGB") if encoding.bits else ()
        return Samples(values, bits, alpha, extra == _ASSOCIATED, notes, _read_nodata(keyframe))

    def describe(self, page: int) -> str:
        """What an image holds, for a file that cannot be read, such as `3 bands of uint8 (CIELAB)`."""
        keyframe = self._find(page)[0].keyframe
        count = keyframe.samplesperpixel
        return f"{count} band{'s' if count > 1 else ''} of {keyframe.dtype} ({keyframe.photometric.name})"

    def _find(self, page: int) -> tuple["_Stack", int]:
        if self._stacks is None:
            return _Stack.of_directory(self._file.pages[page]), 0
        for stack in self._stacks:
            if page < len(stack):
                return stack, page
            page -= len(stack)
        raise IndexError(page)

    def _read_plane(self, stack: "_Stack", plane: int) -> np.ndarray:
        """Read the values (H, W, C) of one plane of a stack."""
        values, axes = stack.read_plane(self._file, plane), stack.plane_axes
        if not set("YX") <= set(axes) <= set("YXCS"):
            raise DataError(f"{self.source}: contains an array {axes} {values.shape}; an image is YX or YXS")
        values = np.moveaxis(values, (axes.index("Y"), axes.index("X")), (0, 1))
        return values.reshape(stack.keyframe.imagelength, stack.keyframe.imagewidth, -1)


def _read_nodata(keyframe: Any) -> str:
    """The value of pixels without data that GDAL wrote into a file; empty if there is none."""
    try:
        return str(float(keyframe.tags.valueof(_GDAL_NODATA)))
    except (TypeError, ValueError):
        return ""


@dataclass(frozen=True)
class _Stack:
    """Planes of equal shape: a series of images, each of one plane for each channel.

    Args:
        keyframe: The directory that describes all planes.
        planes: The directory of each plane. Without as many as planes, their values follow each other, as ImageJ writes them.
        axes: The axes along which planes are stacked.
        shape: Their lengths.
        plane_axes: The axes of a plane.
        offset: The position of the first value in the file, if values follow each other.
    """

    keyframe: Any
    planes: Sequence[Any]
    axes: str
    shape: tuple[int, ...]
    plane_axes: str
    offset: int | None = None

    @classmethod
    def of_directory(cls, directory: Any) -> "_Stack":
        return cls(directory, (directory,), "", (), directory.axes)

    @classmethod
    def of_series(cls, series: "TiffPageSeries") -> "_Stack":
        keyframe, planes = series.keyframe, list(series)
        count = len(series.axes) - len(keyframe.axes)
        axes, shape = series.axes[:count], series.shape[:count]
        is_complete = len(planes) == math.prod(shape)
        if series.shape[count:] != keyframe.shape or not (is_complete or series.dataoffset):
            # Directories that do not fill the axes of the file's description are images of their own.
            return cls(keyframe, planes, "I", (len(planes),), keyframe.axes)
        return cls(keyframe, planes, axes, shape, series.axes[count:], None if is_complete else series.dataoffset)

    def __len__(self) -> int:
        return math.prod(self.shape) // self.channels

    @property
    def channels(self) -> int:
        """The number of planes of an image."""
        return math.prod(size for axis, size in zip(self.axes, self.shape, strict=True) if axis == "C")

    def find_planes(self, page: int) -> list[int]:
        """The indices of the planes of an image, one for each channel."""
        others = [size for axis, size in zip(self.axes, self.shape, strict=True) if axis != "C"]
        position = iter(np.unravel_index(page, others) if others else ())
        ranges = [
            range(size) if axis == "C" else (next(position),) for axis, size in zip(self.axes, self.shape, strict=True)
        ]
        return [int(np.ravel_multi_index(index, self.shape)) if index else 0 for index in itertools.product(*ranges)]

    def find_directory(self, page: int) -> int | None:
        """The index of the only directory of an image; None if it has several or none of its own."""
        if self.channels > 1 or self.offset is not None:
            return None
        directory = self.planes[self.find_planes(page)[0]]
        return directory.index if directory is not None and isinstance(directory.index, int) else None

    def read_plane(self, file: "TiffFile", plane: int) -> np.ndarray:
        """Read the values of a plane, in the order of its axes."""
        if self.offset is not None:
            dtype, count = self.keyframe.dtype, math.prod(self.keyframe.shape)
            offset = self.offset + plane * count * dtype.itemsize
            return file.filehandle.read_array(f"{file.byteorder}{dtype.char}", count, offset).reshape(
                self.keyframe.shape
            )
        if self.planes[plane] is None:
            raise DataError(f"{file.filename}: a page that its description names is missing")
        return self.planes[plane].asarray()


def _find_stacks(file: "TiffFile") -> list[_Stack] | None:
    """The stacks of a file with several directories; None if each directory is an image."""
    if len(file.pages) > _MANY_PAGES and not file.flags:
        return None
    try:
        stacks = [_Stack.of_series(series) for series in file.series]
    except Exception:  # a damaged directory does not affect the others
        return None
    return [stack for stack in stacks if not stack.keyframe.subfiletype & _REDUCED_OR_MASK] or None

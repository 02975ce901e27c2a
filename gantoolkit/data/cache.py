"""Decoded images cached on disk: one memory-mapped file per data set and way of reading it.

The file begins with its key and the offset of each image. A table of the images present follows, then the pixels of each image
with a text about its file. Nothing in it is trusted: a file with an invalid header is created again, and an image with a wrong
checksum is decoded again. Several processes may therefore fill it at once, and any of them may be killed.
"""

import contextlib
import itertools
import mmap
import os
import shutil
import struct
import tempfile
import weakref
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import platformdirs

from gantoolkit.errors import DataError
from gantoolkit.files.paths import user_path

__all__ = ["CACHE_VARIABLE", "MAX_TEXT_BYTES", "SHARE_OF_DISK", "PixelFile", "find_cache_folder"]

SHARE_OF_DISK = 0.5
"""The largest share of the disk space, free or taken by these files, that all of them may grow to."""

MAX_TEXT_BYTES = 1000
"""The space for the text about an image."""

CACHE_VARIABLE = "GANTOOLKIT_CACHE"
"""The environment variable with the folder of the cache files."""

_SUFFIX = ".pixels"
_HEADER = struct.Struct("<24s32sQ")
_MAGIC = b"gantoolkit pixels 2"
_CHECKSUM = struct.Struct("<I")
_ENTRY = struct.Struct("<IIII")
_BLOCK = 512


def find_cache_folder() -> Path:
    """The folder of the cache files: `$GANTOOLKIT_CACHE` if it is set, otherwise a folder in the user's cache.

    Raises:
        DataError: When it is not set and the user has no home folder, as in a container that runs under any user id.
    """
    if folder := os.environ.get(CACHE_VARIABLE):
        return user_path(folder)
    with contextlib.suppress(RuntimeError):  # without a home folder, platformdirs raises, or returns a relative path
        folder = platformdirs.user_cache_path("gantoolkit")
        if folder.is_absolute():
            return folder / "images"
    raise DataError(
        f"this user has no home folder, in which decoded images could be cached; set {CACHE_VARIABLE} to a folder that can be "
        "written"
    )


class PixelFile:
    """A cache file with the pixels of a data set's images, and a text about each of them, addressed by index.

    It can be pickled; the process that unpickles it opens the file itself.

    Args:
        folder: The folder of the file. The file is created if it is missing or damaged.
        key: Digest (32 bytes) of everything that determines the pixels.
        count: The number of images.
        max_sizes: Returns the largest number of bytes of each image; called only to create the file.

    Raises:
        DataError: When the file would take more than `SHARE_OF_DISK`.
        OSError: When the file cannot be created or opened.
    """

    def __init__(self, folder: Path, key: bytes, count: int, max_sizes: Callable[[], Sequence[int]]) -> None:
        self.path = folder / f"{key.hex()}{_SUFFIX}"
        self.key, self.count = key, count
        self.failure = ""
        """Why the cache accepts no more images; empty if it works."""
        try:
            self._open()
        except (OSError, ValueError):
            _create(self.path, key, [size + MAX_TEXT_BYTES for size in max_sizes()])
            self._open()
        os.utime(self.path)  # the least recently used files are removed first

    def __getstate__(self) -> dict[str, object]:
        return {name: getattr(self, name) for name in ("path", "key", "count", "failure")}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__ |= state
        self._starts = None
        try:
            self._open()
        except (OSError, ValueError):
            self.failure = f"{self.path}: is missing or damaged"

    def read(self, index: int, channels: int, dtype: np.dtype) -> tuple[np.ndarray, bytes] | None:
        """The pixels (H, W, C) of an image as a read-only array, and its text; None if they are not in the cache."""
        if self._starts is None:
            return None
        start, stop = self._starts[index : index + 2]
        entry = self._table + index * _ENTRY.size
        width, height, length, checksum = _ENTRY.unpack(self._bytes[entry : entry + _ENTRY.size].tobytes())
        size = width * height * channels * dtype.itemsize
        if not size or size + length > stop - start:
            return None
        pixels = self._bytes[start : start + size].view(dtype).reshape(height, width, channels)
        text = self._bytes[start + size : start + size + length].tobytes()
        if index not in self._verified:
            if _checksum(pixels, text) != checksum:
                return None
            self._verified.add(index)
        return pixels, text

    def write(self, index: int, pixels: np.ndarray, text: bytes = b"") -> None:
        """Store the pixels (H, W, C) of an image, and a text about it.

        Does nothing if they do not fit; a full disk sets `failure`.
        """
        if self.failure or self._starts is None:
            return
        start, stop = self._starts[index : index + 2]
        if pixels.nbytes + len(text) > stop - start:  # the image is larger than its header says
            return
        height, width, _ = pixels.shape
        try:
            # Written with `pwrite`, where a full disk raises an error; through the memory map it would kill the process.
            self._write_at(np.ascontiguousarray(pixels).data.cast("B"), start)
            self._write_at(text, start + pixels.nbytes)
            entry = _ENTRY.pack(width, height, len(text), _checksum(pixels, text))
            self._write_at(entry, self._table + index * _ENTRY.size)
        except OSError as error:
            self.failure = f"{self.path}: cannot be written ({error.strerror or error})"

    def _open(self) -> None:
        """Map the file.

        Raises:
            OSError, ValueError: When it is missing or damaged.
        """
        handle = os.open(self.path, os.O_RDWR)
        weakref.finalize(self, os.close, handle)
        self._bytes = np.frombuffer(mmap.mmap(handle, 0, access=mmap.ACCESS_READ), np.uint8)
        self._table = _HEADER.size + 8 * (self.count + 1) + _CHECKSUM.size
        header = self._bytes[: self._table - _CHECKSUM.size].tobytes()
        expected = _HEADER.pack(_MAGIC, self.key, self.count)
        checksum = self._bytes[len(header) : self._table].tobytes()
        if not header.startswith(expected) or checksum != _CHECKSUM.pack(zlib.crc32(header)):
            raise ValueError("invalid header")
        starts = np.frombuffer(header, "<u8", offset=_HEADER.size).tolist()
        if starts[-1] != len(self._bytes):
            raise ValueError("wrong file size")
        self._starts: list[int] | None = starts
        self._handle = handle
        self._verified: set[int] = set()

    def _write_at(self, content: bytes | memoryview, offset: int) -> None:
        view = memoryview(content)
        while view:  # on an almost full disk, `pwrite` may write a part only
            size = os.pwrite(self._handle, view, offset)
            view, offset = view[size:], offset + size


def _create(path: Path, key: bytes, sizes: Sequence[int]) -> None:
    """Create a file without images, replacing an existing one. It is sparse and takes disk space only as it is filled."""
    table = _HEADER.size + 8 * (len(sizes) + 1) + _CHECKSUM.size
    first = table + _ENTRY.size * len(sizes)
    starts = list(itertools.accumulate(sizes, initial=first))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    _make_room(path.parent, starts[-1])
    header = _HEADER.pack(_MAGIC, key, len(sizes)) + np.array(starts, "<u8").tobytes()
    handle, name = tempfile.mkstemp(suffix=_SUFFIX, prefix=".new-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(header + _CHECKSUM.pack(zlib.crc32(header)))
            file.truncate(starts[-1])
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)


def _make_room(folder: Path, size: int) -> None:
    """Remove the least recently used files until the rest, at full size, leave room for `size` more bytes.

    Raises:
        DataError: When `size` alone exceeds the limit.
    """
    files: list[tuple[float, int, Path]] = []
    space = shutil.disk_usage(folder).free
    for path in folder.glob(f"*{_SUFFIX}"):
        with contextlib.suppress(FileNotFoundError):  # another run may remove it
            status = path.stat()
            files.append((status.st_mtime, status.st_size, path))
            space += status.st_blocks * _BLOCK
    limit = int(space * SHARE_OF_DISK)
    if size > limit:
        raise DataError(
            f"{folder}: the decoded images would take {size / 1e6:,.0f} MB, but only {limit / 1e6:,.0f} MB of the disk may be "
            f"used for them; set {CACHE_VARIABLE} to a folder on a larger disk"
        )
    total = size + sum(file_size for _, file_size, _ in files)
    for _, file_size, path in sorted(files):
        if total <= limit:
            break
        path.unlink(missing_ok=True)
        total -= file_size


def _checksum(pixels: np.ndarray, text: bytes) -> int:
    """The checksum of an image, its shape and its text included."""
    before = zlib.crc32(text, zlib.crc32(repr(pixels.shape).encode()))
    return zlib.crc32(np.ascontiguousarray(pixels).data.cast("B"), before)

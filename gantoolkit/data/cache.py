"""Decoded images that stay on disk: one memory-mapped file of bytes for a data set read in one way.

The file begins with its key and where each image's place lies; a table of what is there follows, then the pixels. Nothing in it
is trusted: a file whose head does not fit is made anew, and an image whose checksum does not fit is decoded anew. So
several processes may fill it at once, and any of them may be killed.
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

__all__ = ["SHARE_OF_DISK", "PixelFile", "find_cache_folder"]

SHARE_OF_DISK = 0.5
"""Of what would be free without them, the most that all these files together may come to take."""

_FOLDER = "GANTOOLKIT_CACHE"
_SUFFIX = ".pixels"
_HEAD = struct.Struct("<24s32sQ")
_MAGIC = b"gantoolkit pixels 1"
_CHECKSUM = struct.Struct("<I")
_ENTRY = struct.Struct("<III")
_BLOCK = 512


def find_cache_folder() -> Path:
    """Where the files lie: the folder that GANTOOLKIT_CACHE names, else one in the user's cache."""
    return Path(os.environ.get(_FOLDER) or platformdirs.user_cache_path("gantoolkit") / "images")


class PixelFile:
    """The pixels of a data set's images by their number, as far as they have been kept.

    It can be sent to another process, which opens the file for itself.

    Args:
        folder: Where the file lies; it is made if it is not there, or not whole.
        key: Digest (32 bytes) of all that decides the pixels.
        count: How many images there are.
        measure: Asked, if the file has to be made, for the most bytes that each image may take.

    Raises:
        DataError: When it would take more than its share of the disk.
        OSError: When it cannot be made or opened.
    """

    def __init__(self, folder: Path, key: bytes, count: int, measure: Callable[[], Sequence[int]]) -> None:
        self.path = folder / f"{key.hex()}{_SUFFIX}"
        self.key, self.count = key, count
        self.failure = ""
        """Why nothing more is kept; empty as long as there is no reason."""
        try:
            self._open()
        except (OSError, ValueError):
            _create(self.path, key, measure())
            self._open()
        os.utime(self.path)  # those that were not used for longest make place for new ones

    def __getstate__(self) -> dict[str, object]:
        return {name: getattr(self, name) for name in ("path", "key", "count", "failure")}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__ |= state
        self._starts = None
        try:
            self._open()
        except (OSError, ValueError):
            self.failure = f"{self.path}: is gone or damaged"

    def recall(self, number: int, channels: int, dtype: np.dtype) -> np.ndarray | None:
        """An image's pixels (H, W, C) of that dtype, which cannot be written to; None where they have not been kept."""
        if self._starts is None:
            return None
        start, stop = self._starts[number : number + 2]
        entry = self._table + number * _ENTRY.size
        width, height, checksum = _ENTRY.unpack(self._bytes[entry : entry + _ENTRY.size].tobytes())
        size = width * height * channels * dtype.itemsize
        if not 0 < size <= stop - start:
            return None
        pixels = self._bytes[start : start + size].view(dtype).reshape(height, width, channels)
        if number not in self._known:
            if _sum(pixels) != checksum:
                return None
            self._known.add(number)
        return pixels

    def keep(self, number: int, pixels: np.ndarray) -> None:
        """Keep an image's pixels (H, W, C); where they do not fit, or the disk is full, nothing happens."""
        if self.failure or self._starts is None:
            return
        start, stop = self._starts[number : number + 2]
        if pixels.nbytes > stop - start:  # a header that spoke of another size
            return
        height, width, _ = pixels.shape
        try:
            # Written, not mapped: a full disk is an error here, and would end the process there.
            self._write(np.ascontiguousarray(pixels).data.cast("B"), start)
            self._write(_ENTRY.pack(width, height, _sum(pixels)), self._table + number * _ENTRY.size)
        except OSError as error:
            self.failure = f"{self.path}: cannot be written ({error.strerror or error})"

    def _open(self) -> None:
        """Map the file.

        Raises:
            OSError, ValueError: When it is not there, or not whole.
        """
        handle = os.open(self.path, os.O_RDWR)
        weakref.finalize(self, os.close, handle)
        self._bytes = np.frombuffer(mmap.mmap(handle, 0, access=mmap.ACCESS_READ), np.uint8)
        self._table = _HEAD.size + 8 * (self.count + 1) + _CHECKSUM.size
        head = self._bytes[: self._table - _CHECKSUM.size].tobytes()
        expected = _HEAD.pack(_MAGIC, self.key, self.count)
        checksum = self._bytes[len(head) : self._table].tobytes()
        if not head.startswith(expected) or checksum != _CHECKSUM.pack(zlib.crc32(head)):
            raise ValueError("its head does not fit")
        starts = np.frombuffer(head, "<u8", offset=_HEAD.size).tolist()
        if starts[-1] != len(self._bytes):
            raise ValueError("it was cut off")
        self._starts: list[int] | None = starts
        self._handle = handle
        self._known: set[int] = set()

    def _write(self, content: bytes | memoryview, at: int) -> None:
        view = memoryview(content)
        while view:  # on a disk that is filling up the system may take a part
            written = os.pwrite(self._handle, view, at)
            view, at = view[written:], at + written


def _create(path: Path, key: bytes, sizes: Sequence[int]) -> None:
    """Make a file without images in place of what is there; it takes room as it is filled."""
    table = _HEAD.size + 8 * (len(sizes) + 1) + _CHECKSUM.size
    first = table + _ENTRY.size * len(sizes)
    starts = list(itertools.accumulate(sizes, initial=first))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    _make_room(path.parent, starts[-1])
    head = _HEAD.pack(_MAGIC, key, len(sizes)) + np.array(starts, "<u8").tobytes()
    handle, name = tempfile.mkstemp(suffix=_SUFFIX, prefix=".new-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(head + _CHECKSUM.pack(zlib.crc32(head)))
            file.truncate(starts[-1])
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)


def _make_room(folder: Path, wanted: int) -> None:
    """Remove the files that were not used for longest, until all may grow as large as they say, with `wanted` bytes more.

    Raises:
        DataError: When even alone these are too many.
    """
    files: list[tuple[float, int, Path]] = []
    room = shutil.disk_usage(folder).free
    for path in folder.glob(f"*{_SUFFIX}"):
        with contextlib.suppress(FileNotFoundError):  # another run makes room too
            found = path.stat()
            files.append((found.st_mtime, found.st_size, path))
            room += found.st_blocks * _BLOCK
    room = int(room * SHARE_OF_DISK)
    if wanted > room:
        raise DataError(
            f"{folder}: the decoded images would take {wanted / 1e6:,.0f} MB, and of the disk {room / 1e6:,.0f} MB are "
            f"for them; set {_FOLDER} to a folder on a larger one"
        )
    total = wanted + sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if total <= room:
            break
        path.unlink(missing_ok=True)
        total -= size


def _sum(pixels: np.ndarray) -> int:
    """Checksum of an image: its shape is part of it."""
    return zlib.crc32(np.ascontiguousarray(pixels).data.cast("B"), zlib.crc32(repr(pixels.shape).encode()))

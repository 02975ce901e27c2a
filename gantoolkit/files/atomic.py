"""Atomic writes: a file is written completely or not at all."""

import contextlib
import errno
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from gantoolkit.files.drives import SET_MODE, SYNC_FILE, SYNC_FOLDER, pass_over

__all__ = [
    "atomic_write",
    "describe_missing_file",
    "describe_write_error",
    "is_url",
    "printable",
    "remove_temporary_files",
]

_PART = ".part"


@contextlib.contextmanager
def atomic_write(path: Path, check: Callable[[Path], None] | None = None) -> Iterator[Path]:
    """Yield a temporary path beside `path` to write to, then sync that file and rename it to `path`, replacing any old file.

    If the block fails or the disk is full, the temporary file is removed and the old file remains. Missing folders are
    created. What the drive lacks, such as syncing a folder, is passed over with a warning.

    Args:
        check: Called with the temporary path after the sync. If it raises, the old file remains.

    Raises:
        OSError: When the file cannot be written. Its message does not name `path`.
    """
    part = path.with_name(f".{path.name}{_PART}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        _set_default_mode(part)
        _sync_file(part)
        if check is not None:
            check(part)
        part.replace(path)
        _sync_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def remove_temporary_files(folder: Path) -> None:
    """Remove temporary files of `atomic_write` from a folder, left there by a process that was killed."""
    for part in folder.glob(f".*{_PART}"):
        with contextlib.suppress(OSError):
            part.unlink()


def printable(path: Path | str) -> str:
    """Convert a path, or text that contains one, to valid Unicode: bytes that are not UTF-8 are replaced."""
    return str(path).encode(errors="surrogateescape").decode(errors="replace")


def is_url(path: Path | str) -> bool:
    """Whether a text, or a path that was made of it, is a URL. A drive of Windows has one letter."""
    return re.match(r"[a-z][a-z0-9+.-]+:/", str(path), re.IGNORECASE) is not None


def describe_missing_file(path: Path, expected: str) -> str:
    """Why a path cannot be opened: it does not exist or is not a regular file; empty if it can.

    Reading from a pipe or a device may never end, or never begin.

    Args:
        expected: What the path should be, such as `an image file`.
    """
    if not path.exists():
        return "is a URL, not a file; download it first" if is_url(path) else "no such file"
    if path.is_file():
        return ""
    return f"is {'a folder' if path.is_dir() else 'a pipe or a device'}, not {expected}"


def describe_write_error(path: Path, error: Exception, needed: int = 0) -> str:
    """Describe why a file cannot be written. If space is missing, state how much is needed and how much is available.

    Args:
        error: An OSError, or the error of a library that quotes one: `... (os error 28)`.
        needed: The number of bytes to be written.
    """
    match = re.search(r"os error (\d+)", str(error))
    code = getattr(error, "errno", None) or (int(match[1]) if match else 0)
    reason = os.strerror(code) if code else str(error)
    size = f"{needed / 1e6:.1f} MB" if needed >= 50_000 else f"{needed / 1e3:.1f} kB"
    demand = f"it needs {size}" if needed else "it needs more"
    if code == errno.EFBIG:
        import resource  # not available on every platform

        limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
        supply = "" if limit == resource.RLIM_INFINITY else f", and a file may take {limit / 1e6:.1f} MB"
        reason += f"; {demand} in one file{supply} (ulimit -f)"
    elif code in (errno.ENOSPC, errno.EDQUOT):
        supply = "" if (free := _free_space(path)) is None else f", and {free / 1e6:.1f} MB are free"
        reason += f"; {demand}{supply}"
    return f"{path}: cannot be written ({reason})"


def _free_space(path: Path) -> int | None:
    """The free bytes on the disk of a path; None if unknown."""
    for folder in path.absolute().parents:
        with contextlib.suppress(OSError):
            return shutil.disk_usage(folder).free
    return None


def _set_default_mode(path: Path) -> None:
    """Set the mode of a new file: some writers create files that only their owner can read."""
    mask = os.umask(0o077)  # the umask can only be read by setting it
    os.umask(mask)
    mode = 0o666 & ~mask
    if stat.S_IMODE(path.stat().st_mode) != mode:
        with pass_over(SET_MODE, path):
            path.chmod(mode)


def _sync_file(path: Path) -> None:
    """Flush a file to the disk and drop it from the page cache, so that the next reader reads the disk.

    Raises:
        OSError: When the disk reports an error.
    """
    with path.open("rb") as file:
        with pass_over(SYNC_FILE, path):
            os.fsync(file.fileno())
        if hasattr(os, "posix_fadvise"):
            with contextlib.suppress(OSError):  # advice, which a drive may not take
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _sync_folder(folder: Path) -> None:
    # The rename is stored in the folder; without a sync, a power failure may undo it.
    with pass_over(SYNC_FOLDER, folder):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

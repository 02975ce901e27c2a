"""Files that are written whole or not at all."""

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

__all__ = ["describe_absence", "describe_failure", "printable", "remove_leftovers", "whole_file"]

_PART = ".part"


@contextlib.contextmanager
def whole_file(path: Path, check: Callable[[Path], None] | None = None) -> Iterator[Path]:
    """Give a temporary path beside `path` to write to; then sync it and rename it to `path`, over what was there.

    If the body fails, or the disk is full, the temporary file is removed and what was at `path` stays. Missing folders
    are made.

    Args:
        check: Called with the temporary path once that is synced; what it raises is a failure too.

    Raises:
        OSError: When the file cannot be written; the message has no path of its own to speak of.
    """
    part = path.with_name(f".{path.name}{_PART}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        part.chmod(0o666 & ~_umask())  # some writers make files that only their owner can read
        _sync_file(part)
        if check is not None:
            check(part)
        part.replace(path)
        _sync_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files that a process which was killed within `whole_file` left in a folder."""
    for part in folder.glob(f".*{_PART}"):
        with contextlib.suppress(OSError):
            part.unlink()


def printable(path: Path | str) -> str:
    """A path, or text that names one, as every file and terminal takes it: bytes of names that are no UTF-8 are replaced."""
    return str(path).encode(errors="surrogateescape").decode(errors="replace")


def describe_absence(path: Path, wanted: str) -> str:
    """Why a path is not to be opened: nothing is there, or no regular file; empty where it may be.

    A pipe or a device may have no end, or never begin.

    Args:
        wanted: What should be there, as in `an image file`.
    """
    if not path.exists():
        return "no such file"
    if path.is_file():
        return ""
    return f"is {'a folder' if path.is_dir() else 'a pipe or a device'}, not {wanted}"


def describe_failure(path: Path, error: Exception, needed: int = 0) -> str:
    """Why a file cannot be written, in words; where that is for want of room, how much it needs and how much there is.

    Args:
        error: An OSError, or what a library made of one: `... (os error 28)`.
        needed: Bytes that were to be written.
    """
    found = re.search(r"os error (\d+)", str(error))
    number = getattr(error, "errno", None) or (int(found[1]) if found else 0)
    reason = os.strerror(number) if number else str(error)
    wanted = f"it needs {needed / 1e6:.1f} MB" if needed else "it needs more"
    if number == errno.EFBIG:
        import resource  # only where there are such limits

        allowed, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
        bound = "" if allowed == resource.RLIM_INFINITY else f", and a file may take {allowed / 1e6:.1f} MB"
        reason += f"; {wanted} in one file{bound} (ulimit -f)"
    elif number in (errno.ENOSPC, errno.EDQUOT):
        room = "" if (free := _free_space(path)) is None else f", and {free / 1e6:.1f} MB are free"
        reason += f"; {wanted}{room}"
    return f"{path}: cannot be written ({reason})"


def _free_space(path: Path) -> int | None:
    """Bytes that are free where a path would lie; None where that cannot be said."""
    for folder in path.absolute().parents:
        with contextlib.suppress(OSError):
            return shutil.disk_usage(folder).free
    return None


def _umask() -> int:
    mask = os.umask(0o077)  # it can only be read by setting it
    os.umask(mask)
    return mask


def _sync_file(path: Path) -> None:
    """Wait until a file's content is on its disk, and let go of the system's copy in memory: who reads it then reads the disk.

    Raises:
        OSError: When the disk did not take it.
    """
    with path.open("rb") as file:
        os.fsync(file.fileno())
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _sync_folder(folder: Path) -> None:
    # The rename itself lies in the folder; without this it may be lost with the power.
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

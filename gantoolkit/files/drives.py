"""Steps that make files safe and that some drives lack: they are passed over with a warning. Errors of a disk stay errors."""

import contextlib
import errno
import mmap
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "LOCK",
    "MAP",
    "SET_MODE",
    "SYNC_FILE",
    "SYNC_FOLDER",
    "DriveStep",
    "find_missing_steps",
    "pass_over",
    "report",
]

_LACKING = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF, errno.ENOTTY})
"""What a drive answers to a request that it does not know. EIO, ENOSPC, EDQUOT, EROFS and ESTALE are failures of known ones."""


@dataclass(frozen=True)
class DriveStep:
    """A step that a drive may lack.

    Args:
        action: What the drive cannot do.
        consequence: What that means for the user.
        refusals: Error codes, besides those of unknown requests, that say that the drive lacks it.
    """

    action: str
    consequence: str
    refusals: frozenset[int] = frozenset()


_UNSYNCED = "after a power failure, new files may be incomplete or missing"
SYNC_FILE = DriveStep("sync a file", _UNSYNCED)
SYNC_FOLDER = DriveStep(
    "sync a folder",
    _UNSYNCED,
    frozenset({errno.EACCES, errno.EPERM, errno.EISDIR}),  # folders that cannot be opened for reading
)
SET_MODE = DriveStep(
    "change the mode of a file", "files have the mode that the drive gives them", frozenset({errno.EPERM, errno.EACCES})
)
LOCK = DriveStep(
    "lock a file", "make sure that no other process trains in this folder", frozenset({errno.ENOLCK, errno.EPERM})
)
MAP = DriveStep("map a file to memory", "readers copy it", frozenset({errno.ENODEV, errno.EACCES, errno.EPERM}))

reported: set[tuple[int, str]] = set()


@contextlib.contextmanager
def pass_over(step: DriveStep, path: Path) -> Iterator[None]:
    """Suppress the error of a step that the drive lacks, with one warning for each drive and consequence.

    Args:
        step: The step, which the block takes.
        path: An existing path on the drive.

    Raises:
        OSError: When the step failed for another reason, such as a disk that is damaged or full.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _LACKING | step.refusals:
            raise
        report(step, path, error)


def find_missing_steps(folder: Path) -> dict[DriveStep, OSError]:
    """Try to sync, lock and map a temporary file in a folder; returns what the drive lacks, with its errors.

    Raises:
        OSError: When the file cannot be written, or a step failed for another reason.
    """
    missing: dict[DriveStep, OSError] = {}
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"content")
        file.flush()
        steps: dict[DriveStep, Callable[[int], object]] = {SYNC_FILE: os.fsync, LOCK: _lock, MAP: _map}
        for step, take in steps.items():
            try:
                take(file.fileno())
            except OSError as error:
                if error.errno not in _LACKING | step.refusals:
                    raise
                missing[step] = error
    return missing


def _lock(handle: int) -> None:
    with contextlib.suppress(ImportError):  # a system with other locks
        import fcntl

        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _map(handle: int) -> None:
    mmap.mmap(handle, 0, access=mmap.ACCESS_WRITE).close()


def report(step: DriveStep, path: Path, error: OSError) -> None:
    """Warn that a drive lacks a step, once for each drive and consequence.

    Args:
        step: The step.
        path: An existing path on the drive.
        error: The drive's answer.
    """
    drive = 0
    with contextlib.suppress(OSError):
        drive = path.stat().st_dev
    if (drive, step.consequence) in reported:
        return
    reported.add((drive, step.consequence))
    folder = path if path.is_dir() else path.parent
    warnings.warn(
        f"{folder}: this drive cannot {step.action} ({error.strerror or error}); {step.consequence}", stacklevel=4
    )

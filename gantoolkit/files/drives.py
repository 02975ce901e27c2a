"""Steps that make files safe and that some drives lack: they are passed over with a warning. Errors of a disk stay errors."""

import contextlib
import errno
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["LOCK", "SET_MODE", "SYNC_FILE", "SYNC_FOLDER", "DriveStep", "pass_over"]

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


SYNC_FILE = DriveStep("sync a file", "after a power failure, new files may be incomplete")
SYNC_FOLDER = DriveStep(
    "sync a folder",
    "after a power failure, new files may be missing",
    frozenset({errno.EACCES, errno.EPERM, errno.EISDIR}),  # folders that cannot be opened for reading
)
SET_MODE = DriveStep(
    "change the mode of a file", "files have the mode that the drive gives them", frozenset({errno.EPERM, errno.EACCES})
)
LOCK = DriveStep(
    "lock a file", "make sure that no other process trains in this folder", frozenset({errno.ENOLCK, errno.EPERM})
)

reported: set[tuple[int, str]] = set()


@contextlib.contextmanager
def pass_over(step: DriveStep, path: Path) -> Iterator[None]:
    """Suppress the error of a step that the drive lacks, with one warning for each drive and step.

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
        _report(step, path, error)


def _report(step: DriveStep, path: Path, error: OSError) -> None:
    drive = 0
    with contextlib.suppress(OSError):
        drive = path.stat().st_dev
    if (drive, step.action) in reported:
        return
    reported.add((drive, step.action))
    folder = path if path.is_dir() else path.parent
    warnings.warn(
        f"{folder}: this drive cannot {step.action} ({error.strerror or error}); {step.consequence}", stacklevel=4
    )

"""Unpack untrusted archives: regular files only, inside the target folder only, and within size limits."""

import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from gantoolkit.errors import DataError

__all__ = ["MAX_FILES", "MAX_RATIO", "unpack"]

MAX_FILES = 1_000_000
MAX_RATIO = 20
"""The largest ratio of unpacked to packed bytes: images hardly compress, zip bombs do."""

_EXTRA_BYTES = 100_000_000
_CHUNK = 1 << 20


def unpack(archive: Path, folder: Path) -> int:
    """Unpack a zip or tar archive (detected by content) into `folder`, which is created once everything is unpacked.

    If the archive contains a single top-level folder, as is usual, that folder becomes `folder`.

    Returns:
        The number of files.

    Raises:
        DataError: When `archive` is not an archive, is damaged or too large, or contains anything but regular files and
            folders inside it. No files remain in this case.
    """
    if not archive.is_file():
        problem = "is a folder, a pipe or a device, not an archive" if archive.exists() else "no such file"
        raise DataError(f"{archive}: {problem}")
    if folder.exists():
        raise DataError(f"{folder}: already exists; remove it or choose another folder")
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    limit = MAX_RATIO * archive.stat().st_size + _EXTRA_BYTES
    count = 0
    try:
        part.mkdir(parents=True)
        for name, stream in _members(archive):
            if _is_desktop_file(name):
                continue
            target = _resolve(part, name, archive)
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as file:
                while chunk := stream.read(_CHUNK):
                    limit -= len(chunk)
                    if limit < 0:
                        raise DataError(
                            f"{archive}: unpacks to more than {MAX_RATIO} times its size, which is not allowed"
                        )
                    file.write(chunk)
            count += 1
            if count > MAX_FILES:
                raise DataError(f"{archive}: contains more than {MAX_FILES:,} files, which is not allowed")
        if not count:
            raise DataError(f"{archive}: contains no files")
        entries = list(part.iterdir())
        (entries[0] if len(entries) == 1 and entries[0].is_dir() else part).replace(folder)
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{archive}: is damaged or not a readable archive ({error})") from error
    except FileExistsError as error:
        raise DataError(f"{archive}: contains '{Path(error.filename).name}' twice, which is not allowed") from error
    except OSError as error:
        raise DataError(f"{folder}: cannot be unpacked ({error.strerror or error})") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return count


def _members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Yield the name and content of each file."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as file:
            for info in file.infolist():
                kind = stat.S_IFMT(info.external_attr >> 16)
                if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                    raise DataError(f"{archive}: '{info.filename}' is a link or a device, which is not allowed")
                if not info.is_dir():
                    with file.open(info) as stream:
                        yield info.filename, stream
        return
    with _open_tar(archive) as tar:
        for member in tar:
            if member.isdir():
                continue
            stream = tar.extractfile(member) if member.isreg() else None
            if stream is None:
                raise DataError(f"{archive}: '{member.name}' is a link or a device, which is not allowed")
            if member.size < 0:
                raise DataError(f"{archive}: '{member.name}' has an invalid size of {member.size} bytes")
            yield member.name, stream


@contextmanager
def _open_tar(archive: Path) -> Iterator[tarfile.TarFile]:
    try:
        tar = tarfile.open(archive)  # noqa: SIM115 (closed below)
    except tarfile.ReadError as error:
        raise DataError(f"{archive}: is neither a zip nor a tar archive") from error
    with tar:
        yield tar


def _is_desktop_file(name: str) -> bool:
    """Whether a desktop program added this file. Such files would hide that an archive has a single top-level folder."""
    path = PurePosixPath(name)
    return "__MACOSX" in path.parts or path.name == ".DS_Store"


def _resolve(folder: Path, name: str, archive: Path) -> Path:
    """The path of a member below `folder`. Its name is untrusted."""
    path = PurePosixPath(name.replace("\\", "/"))
    target = folder.joinpath(*path.parts)
    is_relative = (
        path.parts
        and not path.is_absolute()
        and ".." not in path.parts
        and ":" not in path.parts[0]
        and "\0" not in name
    )
    if not is_relative or not target.resolve().is_relative_to(folder.resolve()):
        raise DataError(f"{archive}: '{name}' points outside the archive, which is not allowed")
    return target

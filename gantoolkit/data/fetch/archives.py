"""Unpacking a stranger's archive: regular files only, inside its folder only, and no more than it can reasonably hold."""

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
"""Bytes that may come out for each that goes in: images hardly compress, bombs do."""

_SPARE = 100_000_000
_CHUNK = 1 << 20


def unpack(archive: Path, folder: Path) -> int:
    """Unpack a zip or tar archive (by content) into `folder`, which appears when everything is in it.

    Where all of it lies in one folder of the archive, as is usual, that folder becomes `folder`.

    Returns:
        The number of files.

    Raises:
        DataError: When it is no archive, or damaged, too large, or holds anything but plain files and folders inside it;
            then nothing of it is left.
    """
    if not archive.is_file():
        there = "a folder, a pipe or a device" if archive.exists() else "not there"
        raise DataError(f"{archive}: is no archive but {there}")
    if folder.exists():
        raise DataError(f"{folder}: exists already; remove it, or choose another place")
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    limit = MAX_RATIO * archive.stat().st_size + _SPARE
    count = 0
    try:
        part.mkdir(parents=True)
        for name, stream in _members(archive):
            if _is_litter(name):
                continue
            target = _inside(part, name, archive)
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as file:
                while chunk := stream.read(_CHUNK):
                    limit -= len(chunk)
                    if limit < 0:
                        raise DataError(f"{archive}: unpacks to more than {MAX_RATIO} times its size; it is refused")
                    file.write(chunk)
            count += 1
            if count > MAX_FILES:
                raise DataError(f"{archive}: holds more than {MAX_FILES:,} files; it is refused")
        if not count:
            raise DataError(f"{archive}: holds no file")
        inside = list(part.iterdir())
        (inside[0] if len(inside) == 1 and inside[0].is_dir() else part).replace(folder)
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{archive}: is damaged, or no archive that can be read ({error})") from error
    except FileExistsError as error:
        raise DataError(f"{archive}: holds '{Path(error.filename).name}' twice; it is refused") from error
    except OSError as error:
        raise DataError(f"{folder}: cannot be unpacked ({error.strerror or error})") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return count


def _members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Name and content of each file; folders are made as they are needed."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as file:
            for info in file.infolist():
                kind = stat.S_IFMT(info.external_attr >> 16)
                if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                    raise DataError(f"{archive}: '{info.filename}' is a link or a device; it is refused")
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
                raise DataError(f"{archive}: '{member.name}' is a link or a device; it is refused")
            if member.size < 0:
                raise DataError(f"{archive}: '{member.name}' is said to have {member.size} bytes; it is refused")
            yield member.name, stream


@contextmanager
def _open_tar(archive: Path) -> Iterator[tarfile.TarFile]:
    try:
        tar = tarfile.open(archive)  # noqa: SIM115 (closed below)
    except tarfile.ReadError as error:
        raise DataError(f"{archive}: is neither a zip nor a tar archive") from error
    with tar:
        yield tar


def _is_litter(name: str) -> bool:
    """What a desktop leaves in archives; it would hide that all the rest lies in one folder."""
    path = PurePosixPath(name)
    return "__MACOSX" in path.parts or path.name == ".DS_Store"


def _inside(folder: Path, name: str, archive: Path) -> Path:
    """Where a member goes; its name is not to be trusted."""
    path = PurePosixPath(name.replace("\\", "/"))
    target = folder.joinpath(*path.parts)
    plain = (
        path.parts
        and not path.is_absolute()
        and ".." not in path.parts
        and ":" not in path.parts[0]
        and "\0" not in name
    )
    if not plain or not target.resolve().is_relative_to(folder.resolve()):
        raise DataError(f"{archive}: '{name}' points outside the archive; it is refused")
    return target

"""What is to be translated: files, folders, patterns such as `photos/**/*.jpg`, and archives."""

import glob
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath

from gantoolkit.data import find_images
from gantoolkit.data.fetch.archives import unpack
from gantoolkit.data.folders import SUFFIXES
from gantoolkit.errors import DataError

__all__ = ["VIDEO_SUFFIXES", "SourceFile", "open_sources"]

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi")
"""File names that are taken for videos."""

_MEDIA = (*SUFFIXES, *VIDEO_SUFFIXES)
_ARCHIVE_SUFFIXES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz")


@dataclass(frozen=True)
class SourceFile:
    """An image or a video.

    Args:
        path: Where it can be read.
        place: Its place in the tree that translations keep.
        name: What it is called: its path, or for one from an archive the archive's, with its place.
        size: Bytes of the file, or of its archive.
        modified: When that was changed last, in nanoseconds.
    """

    path: Path
    place: PurePath
    name: str
    size: int
    modified: int

    @property
    def is_video(self) -> bool:
        """Whether its name says that it is one."""
        return self.path.suffix.lower() in VIDEO_SUFFIXES


@contextmanager
def open_sources(sources: Sequence[str | Path], *, out: str | Path | None = None) -> Iterator[list[SourceFile]]:
    """Find every image and video; archives are unpacked into a temporary folder, for as long as this lasts.

    Args:
        sources: Files, folders, patterns (`**` stands for any folders, and what a pattern begins with is left out of the tree),
            archives.
        out: Folder of the translations; where it lies within a source, it is passed over.

    Raises:
        DataError: When a source is missing or empty, or an archive is damaged or hostile.
    """
    with ExitStack() as stack:
        found: dict[tuple[str, PurePath], SourceFile] = {}
        for given in map(Path, sources):
            for source in _find(given, Path(out).resolve() if out is not None else None, stack):
                found.setdefault((source.name, source.place), source)  # a file may be named twice
        yield list(found.values())


def _find(given: Path, out: Path | None, stack: ExitStack) -> Iterator[SourceFile]:
    if not given.exists() and glob.has_magic(str(given)):
        for path, place in _match(given, out):
            yield from _open_archive(path, stack) if _is_archive(path) else [_describe(path, place)]
    elif given.is_dir():
        images = [path for path in find_images(given, _MEDIA) if not _lies_in(path, out, given)]
        if not images:
            raise DataError(f"{given}: holds nothing but translations")
        yield from (_describe(path, path.relative_to(given)) for path in images)
    elif _is_archive(given):
        yield from _open_archive(given, stack)
    else:
        yield _describe(given, PurePath(given.name))


def _match(pattern: Path, out: Path | None) -> list[tuple[Path, Path]]:
    """What a pattern matches that can be translated, as in a folder, and its place below what the pattern begins with."""
    parts = [*pattern.parts, *(["*"] if pattern.name == "**" else [])]
    count = next(place for place, part in enumerate(parts) if glob.has_magic(part))
    fixed = Path(*parts[:count])
    try:
        matching = sorted(fixed.glob(str(Path(*parts[count:]))))
    except ValueError as error:
        raise DataError(f"{pattern}: is no pattern ({error})") from error
    found = [
        (path, path.relative_to(fixed))
        for path in matching
        if path.is_file()
        and (path.suffix.lower() in _MEDIA or _is_archive(path))
        and not any(part.startswith(".") for part in path.relative_to(fixed).parts)
        and not _lies_in(path, out, fixed)
    ]
    if not found:
        raise DataError(f"{pattern}: matches no image, video or archive")
    return found


def _open_archive(archive: Path, stack: ExitStack) -> list[SourceFile]:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gantoolkit-"))) / "archive"
    unpack(archive, folder)
    return [_describe(path, path.relative_to(folder), archive) for path in find_images(folder, _MEDIA)]


def _is_archive(path: Path) -> bool:
    return path.name.lower().endswith(_ARCHIVE_SUFFIXES) and path.is_file()


def _lies_in(path: Path, out: Path | None, source: Path) -> bool:
    """Whether a file is a translation, in a folder for them that lies within its source."""
    if out is None or out == source.resolve() or not out.is_relative_to(source.resolve()):
        return False
    return path.resolve().is_relative_to(out)


def _describe(path: Path, place: PurePath, archive: Path | None = None) -> SourceFile:
    try:
        found = (archive or path).stat()
    except OSError as error:
        raise DataError(f"{path}: no such file or folder") from error
    return SourceFile(path, place, str(archive / place if archive else path), found.st_size, found.st_mtime_ns)

"""What is to be translated: files, folders, patterns such as `photos/**/*.jpg`, and archives."""

import glob
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath

from gantoolkit.data import find_images
from gantoolkit.data.archives import unpack
from gantoolkit.data.folders import SUFFIXES
from gantoolkit.errors import DataError

__all__ = ["VIDEO_SUFFIXES", "SourceFile", "open_sources"]

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi")
"""File names that are taken for videos."""

_ARCHIVE_SUFFIXES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz")


@dataclass(frozen=True)
class SourceFile:
    """An image or a video.

    Args:
        path: Where it can be read.
        place: Its place in the tree that translations keep.
        name: What it is called: its path, or for one from an archive the archive's with its place inside.
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
        out: A folder to pass over, as translations lie there.

    Raises:
        DataError: When a source is missing or empty, or an archive is damaged or hostile.
    """
    with ExitStack() as stack:
        found: list[SourceFile] = []
        passed_over = Path(out).resolve() if out is not None else None
        for source in map(Path, sources):
            if not source.exists() and glob.has_magic(str(source)):
                found += _match(str(source), passed_over)
            elif source.is_dir():
                found += [_describe(path, path.relative_to(source)) for path in _search(source, passed_over)]
            elif source.name.lower().endswith(_ARCHIVE_SUFFIXES) and source.is_file():
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gantoolkit-"))) / "archive"
                unpack(source, folder)
                found += [_describe(path, path.relative_to(folder), source) for path in _search(folder, None)]
            else:
                found.append(_describe(source, PurePath(source.name)))
        yield found


def _match(pattern: str, passed_over: Path | None) -> list[SourceFile]:
    parts = Path(pattern).parts
    count = next(place for place, part in enumerate(parts) if glob.has_magic(part))
    fixed = Path(*parts[:count])
    matching = sorted(fixed.glob(str(Path(*parts[count:]))))
    files = [path for path in matching if path.is_file() and not _lies_in(path, passed_over)]
    if not files:
        raise DataError(f"{pattern}: no file matches")
    return [_describe(path, path.relative_to(fixed)) for path in files]


def _search(folder: Path, passed_over: Path | None) -> list[Path]:
    inside = passed_over if passed_over != folder.resolve() else None  # else it is a mistake that `plan_targets` names
    found = [path for path in find_images(folder, (*SUFFIXES, *VIDEO_SUFFIXES)) if not _lies_in(path, inside)]
    if not found:
        raise DataError(f"{folder}: holds nothing but translations")
    return found


def _lies_in(path: Path, folder: Path | None) -> bool:
    return folder is not None and path.resolve().is_relative_to(folder)


def _describe(path: Path, place: PurePath, archive: Path | None = None) -> SourceFile:
    try:
        found = (archive or path).stat()
    except OSError as error:
        raise DataError(f"{path}: no such file or folder") from error
    return SourceFile(path, place, str(archive / place if archive else path), found.st_size, found.st_mtime_ns)

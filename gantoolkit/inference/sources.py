"""Find the files to translate: in files, folders, patterns such as `photos/**/*.jpg`, and archives."""

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
"""Suffixes of files that are treated as videos."""

_MEDIA = (*SUFFIXES, *VIDEO_SUFFIXES)
_ARCHIVE_SUFFIXES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz")


@dataclass(frozen=True)
class SourceFile:
    """An image or a video.

    Args:
        path: The file to read.
        relative_path: Its path relative to the source's root; its translation has the same one below the output folder.
        name: Its path as the user knows it. For a file in an archive: the archive's path, followed by the relative one.
        size: Size in bytes of the file, or of its archive.
        modified: Modification time in nanoseconds of the file, or of its archive.
    """

    path: Path
    relative_path: PurePath
    name: str
    size: int
    modified: int

    @property
    def is_video(self) -> bool:
        """Whether the file's suffix is that of a video."""
        return self.path.suffix.lower() in VIDEO_SUFFIXES


@contextmanager
def open_sources(sources: Sequence[str | Path], *, out: str | Path | None = None) -> Iterator[list[SourceFile]]:
    """Find every image and video. Archives are unpacked into a temporary folder, which is deleted on exit.

    Args:
        sources: Files, folders, archives, and patterns. In a pattern, `**` matches any number of folders, and relative paths
            start at the first part with a wildcard.
        out: Folder of the translations. If it lies within a source, its files are ignored.

    Raises:
        DataError: When a source is missing or empty, or an archive is damaged or malicious.
    """
    with ExitStack() as stack:
        files: dict[tuple[str, PurePath], SourceFile] = {}
        for path in map(Path, sources):
            for file in _find(path, Path(out).resolve() if out is not None else None, stack):
                files.setdefault((file.name, file.relative_path), file)  # a file may be named twice
        yield list(files.values())


def _find(source: Path, out: Path | None, stack: ExitStack) -> Iterator[SourceFile]:
    if not source.exists() and glob.has_magic(str(source)):
        for path, relative_path in _match(source, out):
            yield from _open_archive(path, stack) if _is_archive(path) else [_describe(path, relative_path)]
    elif source.is_dir():
        images = [path for path in find_images(source, _MEDIA) if not _is_translation(path, out, source)]
        if not images:
            raise DataError(f"{source}: contains only translations")
        yield from (_describe(path, path.relative_to(source)) for path in images)
    elif _is_archive(source):
        yield from _open_archive(source, stack)
    else:
        yield _describe(source, PurePath(source.name))


def _match(pattern: Path, out: Path | None) -> list[tuple[Path, Path]]:
    """The images, videos and archives that a pattern matches, each with its path relative to the pattern's fixed part."""
    parts = [*pattern.parts, *(["*"] if pattern.name == "**" else [])]
    count = next(index for index, part in enumerate(parts) if glob.has_magic(part))
    root = Path(*parts[:count])
    try:
        paths = sorted(root.glob(str(Path(*parts[count:]))))
    except ValueError as error:
        raise DataError(f"{pattern}: is not a valid pattern ({error})") from error
    matches = [
        (path, path.relative_to(root))
        for path in paths
        if path.is_file()
        and (path.suffix.lower() in _MEDIA or _is_archive(path))
        and not any(part.startswith(".") for part in path.relative_to(root).parts)
        and not _is_translation(path, out, root)
    ]
    if not matches:
        raise DataError(f"{pattern}: matches no image, video or archive")
    return matches


def _open_archive(archive: Path, stack: ExitStack) -> list[SourceFile]:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gantoolkit-"))) / "archive"
    unpack(archive, folder)
    return [_describe(path, path.relative_to(folder), archive) for path in find_images(folder, _MEDIA)]


def _is_archive(path: Path) -> bool:
    return path.name.lower().endswith(_ARCHIVE_SUFFIXES) and path.is_file()


def _is_translation(path: Path, out: Path | None, source: Path) -> bool:
    """Whether a file lies in the folder of translations, if that is a folder within the source."""
    if out is None or out == source.resolve() or not out.is_relative_to(source.resolve()):
        return False
    return path.resolve().is_relative_to(out)


def _describe(path: Path, relative_path: PurePath, archive: Path | None = None) -> SourceFile:
    try:
        status = (archive or path).stat()
    except OSError as error:
        raise DataError(f"{path}: no such file or folder") from error
    name = str(archive / relative_path if archive else path)
    return SourceFile(path, relative_path, name, status.st_size, status.st_mtime_ns)

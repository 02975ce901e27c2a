"""Find the files to translate: in files, folders, patterns such as `photos/**/*.jpg`, and archives."""

import glob
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path, PurePath
from typing import overload

from gantoolkit.data.fetch.archives import unpack
from gantoolkit.data.listing import Listing, list_images
from gantoolkit.data.suffixes import SUFFIXES, VIDEO_SUFFIXES
from gantoolkit.errors import DataError
from gantoolkit.files.atomic import is_url
from gantoolkit.files.paths import user_path

__all__ = ["SourceFile", "Sources", "open_sources"]

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


@dataclass(frozen=True)
class Sources(Sequence[SourceFile]):
    """The images and videos of all sources.

    Args:
        files: The files, in the order of the sources.
        notes: Sentences about what the sources hold and is not translated.
    """

    files: tuple[SourceFile, ...]
    notes: tuple[str, ...] = ()

    @overload
    def __getitem__(self, index: int) -> SourceFile: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[SourceFile]: ...
    def __getitem__(self, index: int | slice) -> SourceFile | Sequence[SourceFile]:
        return self.files[index]

    def __len__(self) -> int:
        return len(self.files)


@contextmanager
def open_sources(sources: Sequence[str | Path], *, out: str | Path | None = None) -> Iterator[Sources]:
    """Find every image and video. Archives are unpacked into a temporary folder, which is deleted on exit.

    Args:
        sources: Files, folders, archives, and patterns. In a pattern, `**` matches any number of folders, and relative paths
            start at the first part with a wildcard.
        out: Folder of the translations. If it lies within a source, its files are ignored.

    Raises:
        DataError: When a source is missing or empty, or an archive is damaged or malicious.
    """
    with ExitStack() as stack:
        search = _Search(stack, user_path(out).resolve() if out is not None else None)
        for source in map(user_path, sources):
            for file in search.find(source):
                search.files.setdefault((file.name, file.relative_path), file)  # a file may be named twice
        yield Sources(tuple(search.files.values()), tuple(dict.fromkeys(search.notes)))


@dataclass
class _Search:
    """The files and notes of all sources so far.

    Args:
        stack: Deletes the temporary folders of archives.
        out: The resolved folder of the translations.
    """

    stack: ExitStack
    out: Path | None
    files: dict[tuple[str, PurePath], SourceFile] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def find(self, source: Path) -> Iterator[SourceFile]:
        """The files of one source."""
        if not source.exists() and glob.has_magic(str(source)):
            yield from self._match(source)
        elif source.is_dir():
            yield from self._list(source)
        elif _is_archive(source):
            yield from self._open_archive(source)
        else:
            yield _describe(source, PurePath(source.name))

    def _list(self, folder: Path) -> Iterator[SourceFile]:
        listing = list_images(folder, (*_MEDIA, *_ARCHIVE_SUFFIXES))
        media = listing.select(lambda path: not _is_archive(path))
        if not media.images:
            raise DataError(media.describe_empty(_MEDIA))
        originals = media.select(lambda path: not self._is_translation(path, folder))
        if not originals.images:
            raise DataError(f"{folder}: contains only translations")
        self.notes += originals.notes(str(folder))
        self.notes += [
            f"{path}: an archive in a folder is not opened; translate it by its own name"
            for path in listing.images
            if _is_archive(path) and not self._is_translation(path, folder)
        ]
        yield from (_describe(path, path.relative_to(folder)) for path in originals.images)

    def _match(self, pattern: Path) -> Iterator[SourceFile]:
        """The images, videos and archives that a pattern matches, by their paths relative to the pattern's fixed part."""
        parts = [*pattern.parts, *(["*"] if pattern.name == "**" else [])]
        count = next(index for index, part in enumerate(parts) if glob.has_magic(part))
        root, wild = Path(*parts[:count]), parts[count:]
        if part := next((part for part in wild if "**" in part and part != "**"), ""):
            raise DataError(f"{pattern}: is not a valid pattern: '**' stands alone between slashes, unlike in '{part}'")
        matches = Listing(root, ())
        if root.is_dir():
            listing = list_images(root, (*_MEDIA, *_ARCHIVE_SUFFIXES), depth=None if "**" in wild else len(wild))
            matches = listing.select(
                lambda path: _matches(path.relative_to(root).parts, wild) and not self._is_translation(path, root)
            )
        notes = matches.notes(str(root))
        if not matches.images:
            raise DataError("; ".join([f"{pattern}: matches no image, video or archive", *notes]))
        self.notes += notes
        for path in matches.images:
            yield from self._open_archive(path) if _is_archive(path) else [_describe(path, path.relative_to(root))]

    def _open_archive(self, archive: Path) -> Iterator[SourceFile]:
        folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory(prefix="gantoolkit-"))) / "archive"
        unpack(archive, folder)
        listing = list_images(folder, _MEDIA)
        if not listing.images:
            raise DataError(listing.describe_empty(_MEDIA).replace(str(folder), str(archive)))
        self.notes += listing.notes(str(archive))
        yield from (_describe(path, path.relative_to(folder), archive) for path in listing.images)

    def _is_translation(self, path: Path, source: Path) -> bool:
        """Whether a file lies in the folder of translations, unless that folder contains the source."""
        if self.out is None or source.resolve().is_relative_to(self.out):
            return False
        return path.parent.resolve().is_relative_to(self.out)


def _matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether the parts of a path match those of a pattern, in which `**` stands for any number of folders."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return _matches(parts, pattern[1:]) or (bool(parts) and _matches(parts[1:], pattern))
    return bool(parts) and fnmatch(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])


def _is_archive(path: Path) -> bool:
    return path.name.lower().endswith(_ARCHIVE_SUFFIXES) and path.is_file()


def _describe(path: Path, relative_path: PurePath, archive: Path | None = None) -> SourceFile:
    try:
        status = (archive or path).stat()
    except OSError as error:
        problem = "is a URL, not a file; download it first" if is_url(path) else "no such file or folder"
        raise DataError(f"{path}: {problem}") from error
    name = str(archive / relative_path if archive else path)
    return SourceFile(path, relative_path, name, status.st_size, status.st_mtime_ns)

"""Find the image files below a folder, and what lies there and is not read."""

import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from gantoolkit.data.notes import describe_files
from gantoolkit.data.suffixes import SUFFIXES, unread_ending
from gantoolkit.errors import DataError, count_of
from gantoolkit.files.paths import user_path

__all__ = ["Listing", "find_images", "list_images", "open_listing"]

_Identities = frozenset[tuple[int, int]]


@dataclass(frozen=True)
class Listing:
    """What lies below a folder. Names that begin with a dot are ignored.

    Args:
        folder: The folder.
        images: The image files, sorted by path.
        unread: Images and videos of formats that are not read, with their endings, sorted by path.
        obstacles: What could not be visited (broken links, folders that cannot be listed), by the reason.
        links: Linked folders that were followed.
    """

    folder: Path
    images: tuple[Path, ...]
    unread: dict[Path, str] = field(default_factory=dict)
    obstacles: dict[str, list[Path]] = field(default_factory=dict)
    links: tuple[Path, ...] = ()

    def select(self, accepts: Callable[[Path], bool]) -> "Listing":
        """The part of this listing whose paths are accepted."""
        obstacles = {reason: list(filter(accepts, paths)) for reason, paths in self.obstacles.items()}
        return replace(
            self,
            images=tuple(filter(accepts, self.images)),
            unread={path: ending for path, ending in self.unread.items() if accepts(path)},
            obstacles={reason: paths for reason, paths in obstacles.items() if paths},
        )

    def describe_unread(self) -> str:
        """The numbers of unread files by ending, such as `3 files are not read (.heic 2, .tga 1)`; empty if there are none."""
        if not self.unread:
            return ""
        counts = ", ".join(f"{ending} {count}" for ending, count in Counter(self.unread.values()).most_common())
        first = next(iter(self.unread)).relative_to(self.folder)
        verb = "is" if len(self.unread) == 1 else "are"
        advice = []
        if any(ending.startswith(".") for ending in self.unread.values()):
            advice.append(f"convert {'it' if len(self.unread) == 1 else 'them'} to PNG or TIFF")
        if "no suffix" in self.unread.values():
            advice.append("add the suffix of its format to a name without one")
        example = f"such as {first}"
        return f"{count_of(len(self.unread), 'file')} {verb} not read ({counts}), {example}; {', and '.join(advice)}"

    def notes(self, name: str) -> tuple[str, ...]:
        """Sentences about everything that is not read.

        Args:
            name: The folder's name in these sentences.
        """
        unread = self.describe_unread()
        notes = [f"{name}: {unread}"] if unread else []
        for reason, paths in self.obstacles.items():
            notes.append(f"{name}: {describe_files(paths[0].relative_to(self.folder), reason, len(paths))}")
        return tuple(notes)

    def describe_empty(self, suffixes: Sequence[str] = SUFFIXES) -> str:
        """The message that it contains no image."""
        where = f"{self.folder}: "
        others = [note.removeprefix(where) for note in self.notes(str(self.folder))]
        return where + "; ".join(["contains no image", *others, f"known suffixes are {', '.join(suffixes)}"])


def find_images(folder: str | Path, suffixes: Sequence[str] = SUFFIXES) -> list[Path]:
    """Find every image file below a folder, sorted by path, as `list_images` does.

    Raises:
        DataError: When the folder does not exist, cannot be listed, or contains no image.
    """
    return list(open_listing(folder, suffixes).images)


def open_listing(folder: str | Path, suffixes: Sequence[str] = SUFFIXES) -> Listing:
    """List the files below a folder that contains images.

    Raises:
        DataError: As `find_images`.
    """
    listing = list_images(folder, suffixes)
    if not listing.images:
        raise DataError(listing.describe_empty(suffixes))
    return listing


def list_images(folder: str | Path, suffixes: Sequence[str] = SUFFIXES, *, depth: int | None = None) -> Listing:
    """List the files below a folder. Linked folders are followed, unless they contain the link.

    Args:
        suffixes: The suffixes of image files.
        depth: The levels of folders to list; 1 lists the folder itself. All of them by default.

    Raises:
        DataError: When the folder does not exist or cannot be listed.
    """
    folder = user_path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    try:
        os.scandir(folder).close()
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed ({error.strerror or error})") from error
    walk = _Walk(folder, suffixes, depth)
    images: list[Path] = []
    unread: dict[Path, str] = {}
    for path in walk.files():
        if path.name.lower().endswith(walk.suffixes):
            images.append(path)
        elif ending := unread_ending(path):
            unread[path] = ending
    ordered = tuple(sorted(images, key=_order))
    return Listing(folder, ordered, dict(sorted(unread.items())), walk.obstacles, tuple(sorted(walk.links)))


def _order(path: Path) -> tuple[list[str], Path]:
    # File systems store an accent in different ways; the order of a data set, and thus a run, does not depend on that.
    return [unicodedata.normalize("NFC", part) for part in path.parts], path


class _Walk:
    """A walk through a folder and its subfolders, which records what it could not visit."""

    def __init__(self, root: Path, suffixes: Sequence[str], depth: int | None) -> None:
        self.root = root
        self.suffixes = tuple(suffixes)
        self.depth = depth
        self.above: _Identities = frozenset(map(_identify, root.resolve().parents))
        self.obstacles: dict[str, list[Path]] = {}
        self.links: list[Path] = []

    def files(self) -> Iterator[Path]:
        """Every regular file below the folder, in any order."""
        pending = [(self.root, 1, frozenset([_identify(self.root)]))]
        while pending:
            folder, level, ancestors = pending.pop()
            try:
                with os.scandir(folder) as entries:
                    visible = sorted((entry for entry in entries if not entry.name.startswith(".")), key=_name)
            except OSError as error:
                self._record(f"cannot be listed ({error.strerror or error})", folder)
                continue
            for entry in visible:
                try:
                    if entry.is_dir():
                        pending += self._enter(entry, level, ancestors)
                    elif entry.is_file():
                        yield Path(entry.path)
                    else:
                        self._pass_over(entry)
                except OSError as error:
                    self._record(f"cannot be accessed ({error.strerror or error})", Path(entry.path))

    def _enter(
        self, entry: os.DirEntry[str], level: int, ancestors: _Identities
    ) -> list[tuple[Path, int, _Identities]]:
        path = Path(entry.path)
        if level == self.depth:
            return []
        identity = _identify(path)
        if identity in self.above:
            self._record(f"leads to a folder that contains {self.root.name}, and is not followed", path)
        if identity in self.above or identity in ancestors:  # what lies in an ancestor is listed anyway
            return []
        if entry.is_symlink():
            self.links.append(path)
        return [(path, level + 1, ancestors | {identity})]

    def _pass_over(self, entry: os.DirEntry[str]) -> None:
        path = Path(entry.path)
        if path.name.lower().endswith(self.suffixes) or not path.suffix:
            self._record("is a pipe or a device" if path.exists() else "is a link that leads nowhere", path)

    def _record(self, reason: str, path: Path) -> None:
        self.obstacles.setdefault(reason, []).append(path)


def _identify(folder: Path) -> tuple[int, int]:
    """Identifies a folder, whatever path leads to it."""
    status = folder.stat()
    return status.st_dev, status.st_ino


def _name(entry: os.DirEntry[str]) -> str:
    return entry.name

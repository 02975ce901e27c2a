"""The images of a study: reading them from folders and rendering them for display."""

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageOps

from gantoolkit.data import read_image
from gantoolkit.data.listing import open_listing
from gantoolkit.errors import DataError

__all__ = ["Materials"]

_CACHE_SIZE = 512


@dataclass(frozen=True)
class Materials:
    """Real images and the fakes of each algorithm.

    Args:
        real: Files of real images.
        fakes: Files of fakes by algorithm.
        side: Side in pixels of the square in which each image is shown.
        problems: Messages about files that are not read, and about differences in size that may reveal the fakes.
    """

    real: tuple[Path, ...]
    fakes: Mapping[str, tuple[Path, ...]]
    side: int = 256
    problems: tuple[str, ...] = field(default=(), compare=False)

    @classmethod
    def open(cls, real: Path, fakes: Mapping[str, Path], *, side: int = 256) -> "Materials":
        """Find and read all images. Unreadable ones are left out and listed in `problems`.

        Raises:
            DataError: If a folder is missing or has no readable image.
        """
        problems: list[str] = []
        sizes: dict[str, set[tuple[int, int]]] = {}
        files = {
            name: _find_readable(folder, problems, sizes.setdefault(name, set()))
            for name, folder in {"": real, **fakes}.items()
        }
        problems += [
            f"{name}: its images differ in size from the real ones; all are resized to {side}×{side}, which may "
            "leave traces that reveal the fakes"
            for name in fakes
            if sizes[name] != sizes[""] or len(sizes[name]) > 1
        ]
        return cls(files.pop(""), files, side, tuple(problems))

    def render(self, path: Path) -> bytes:
        """Render an image for display: a square PNG of its pixels, without metadata that could reveal its origin."""
        return _render(path, self.side)


def _find_readable(folder: Path, problems: list[str], sizes: set[tuple[int, int]]) -> tuple[Path, ...]:
    readable: list[Path] = []
    listing = open_listing(folder)
    problems += listing.notes(str(folder))
    for path in listing.images:
        try:
            sizes.add(read_image(path).size)
        except DataError as error:
            problems.append(str(error))
        else:
            readable.append(path)
    if not readable:
        raise DataError(f"{folder}: none of its images can be read; the last error: {problems[-1]}")
    return tuple(readable)


@lru_cache(maxsize=_CACHE_SIZE)
def _render(path: Path, side: int) -> bytes:
    image = ImageOps.fit(read_image(path), (side, side), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()

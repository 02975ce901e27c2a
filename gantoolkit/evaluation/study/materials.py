"""The images of a study: what is read from folders, and how each is shown."""

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageOps

from gantoolkit.data import find_images, read_image
from gantoolkit.errors import DataError

__all__ = ["Materials"]

_KEPT = 512


@dataclass(frozen=True)
class Materials:
    """Real images, and the fakes of each algorithm.

    Args:
        real: Files.
        fakes: Files by the algorithm's name.
        side: Side in pixels of the square in which each image is shown.
        problems: Files that cannot be read, and what else would give an image away; in words.
    """

    real: tuple[Path, ...]
    fakes: Mapping[str, tuple[Path, ...]]
    side: int = 256
    problems: tuple[str, ...] = field(default=(), compare=False)

    @classmethod
    def open(cls, real: Path, fakes: Mapping[str, Path], *, side: int = 256) -> "Materials":
        """Find and read all images; those that cannot be read are left out and named in `problems`.

        Raises:
            DataError: When a folder is missing or holds no image that can be read.
        """
        problems: list[str] = []
        sizes: dict[str, set[tuple[int, int]]] = {}
        found = {
            name: _find_readable(folder, problems, sizes.setdefault(name, set()))
            for name, folder in {"": real, **fakes}.items()
        }
        problems += [
            f"{name}: its images and the real ones differ in size; all are brought to {side}×{side}, which may "
            "leave traces that tell them apart"
            for name in fakes
            if sizes[name] != sizes[""] or len(sizes[name]) > 1
        ]
        return cls(found.pop(""), found, side, tuple(problems))

    def render(self, path: Path) -> bytes:
        """An image as it is shown: a square PNG without anything but its pixels, so that no format gives it away."""
        return _render(path, self.side)


def _find_readable(folder: Path, problems: list[str], sizes: set[tuple[int, int]]) -> tuple[Path, ...]:
    kept: list[Path] = []
    for path in find_images(folder):
        try:
            sizes.add(read_image(path).size)
        except DataError as error:
            problems.append(str(error))
        else:
            kept.append(path)
    if not kept:
        raise DataError(f"{folder}: none of its images can be read; the last: {problems[-1]}")
    return tuple(kept)


@lru_cache(maxsize=_KEPT)
def _render(path: Path, side: int) -> bytes:
    image = ImageOps.fit(read_image(path), (side, side), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()

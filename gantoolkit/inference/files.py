"""Translating files and folders: names and tree are kept, a bad file is named and skipped."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image

from gantoolkit.data import find_images, write_image
from gantoolkit.errors import DataError
from gantoolkit.inference.translator import Translator

__all__ = ["Translated", "plan_targets", "translate_files"]


@dataclass(frozen=True)
class Translated:
    """What became of one file: where its translation lies, or why there is none."""

    source: Path
    target: Path
    problem: str = ""


def plan_targets(
    sources: Sequence[str | Path], out: str | Path, *, form: Literal["png", "jpg"] | None = None
) -> dict[Path, Path]:
    """Where the translation of each image goes: below `out` with its name, and for a folder with its place in the tree.

    Args:
        sources: Files, and folders that are searched.
        out: Folder for the translations.
        form: File format; none keeps PNG and JPEG as they are and makes PNG of everything else.

    Raises:
        DataError: When a source is missing or empty, or a translation would overwrite a source or another translation.
    """
    targets: dict[Path, Path] = {}
    for source in map(Path, sources):
        folder, files = (source, find_images(source)) if source.is_dir() else (source.parent, [source])
        for path in files:
            if not path.exists():
                raise DataError(f"{path}: no such file or folder")
            suffix = f".{form}" if form else path.suffix if path.suffix.lower() in (".png", ".jpg", ".jpeg") else ".png"
            targets[path] = Path(out) / path.relative_to(folder).with_suffix(suffix)
    taken: dict[Path, Path] = {}
    originals = {path.resolve() for path in targets}
    for path, target in targets.items():
        if target in taken:
            raise DataError(f"{path} and {taken[target]} would both become {target}; translate them into two folders")
        if target.resolve() in originals:
            raise DataError(f"{target}: would be overwritten by its own translation; choose another --out")
        taken[target] = path
    return targets


def translate_files(translator: Translator, targets: dict[Path, Path], *, batch_size: int = 8) -> Iterator[Translated]:
    """Translate files one batch after the other; a file that cannot be read is reported and passed over.

    Args:
        targets: As from `plan_targets`.
        batch_size: Images that are in memory at a time.

    Raises:
        DataError: When a translation cannot be written (a full disk, say).
    """
    items = list(targets.items())
    for first in range(0, len(items), batch_size):
        read: list[tuple[Path, Path, Image.Image]] = []
        for source, target in items[first : first + batch_size]:
            try:
                read.append((source, target, translator.read(source)))
            except DataError as error:
                yield Translated(source, target, str(error))
        for (source, target, _), made in zip(
            read, _translate_all(translator, [image for *_, image in read]), strict=True
        ):
            if isinstance(made, DataError):
                yield Translated(source, target, f"{source}: {made}")
            else:
                write_image(made, target)
                yield Translated(source, target)


def _translate_all(translator: Translator, images: Sequence[Image.Image]) -> list[Image.Image | DataError]:
    """Each image's translation, or why there is none; one that fails takes no other with it."""
    try:
        return list(translator.translate(images))
    except DataError as error:
        return [error] if len(images) == 1 else [made for one in images for made in _translate_all(translator, [one])]

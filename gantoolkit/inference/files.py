"""Translating files and folders: names and tree are kept, a bad file is named and skipped."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from gantoolkit.data import find_images
from gantoolkit.data.encoding import PICTURE, Encoding
from gantoolkit.data.pixels import forms_of, write_pixels
from gantoolkit.errors import DataError
from gantoolkit.inference.translator import Translator

__all__ = ["Form", "Translated", "plan_targets", "translate_files"]

Form = Literal["png", "jpg", "tif", "npy"]


@dataclass(frozen=True)
class Translated:
    """What became of one file: where its translation lies, or why there is none."""

    source: Path
    target: Path
    problem: str = ""


def plan_targets(
    sources: Sequence[str | Path], out: str | Path, *, form: Form | None = None, encoding: Encoding = PICTURE
) -> dict[Path, Path]:
    """Where the translation of each image goes: below `out` with its name, and for a folder with its place in the tree.

    Args:
        sources: Files, and folders that are searched.
        out: Folder for the translations.
        form: File format; by default one that loses nothing of what the encoding has, the source's own if it is such, and for
            pictures the JPEG that was one.
        encoding: What translations are.

    Raises:
        DataError: When the form cannot hold the translations, a source is missing or empty, or a translation would overwrite a
            source or another translation.
    """
    known = forms_of(encoding)
    if form and f".{form}" not in known:
        raise DataError(f"--form {form}: cannot hold images of {encoding}; {', '.join(known)} can")
    kept = (".png", ".jpg", ".jpeg") if encoding.is_picture else known if encoding.bits else (".tif", ".tiff", ".npy")
    targets: dict[Path, Path] = {}
    for source in map(Path, sources):
        folder, files = (source, find_images(source)) if source.is_dir() else (source.parent, [source])
        for path in files:
            if not path.exists():
                raise DataError(f"{path}: no such file or folder")
            suffix = f".{form}" if form else path.suffix if path.suffix.lower() in kept else known[0]
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
        read: list[tuple[Path, Path, np.ndarray]] = []
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
                write_pixels(made, target, translator.generator.target)
                yield Translated(source, target)


def _translate_all(translator: Translator, images: Sequence[np.ndarray]) -> list[np.ndarray | DataError]:
    """Each image's translation, or why there is none; one that fails takes no other with it."""
    try:
        return [*translator.translate_pixels(images)]
    except DataError as error:
        return [error] if len(images) == 1 else [made for one in images for made in _translate_all(translator, [one])]

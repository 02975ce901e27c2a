"""Translating files and folders: names and tree are kept, a bad file is named and skipped."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from gantoolkit.data.encoding import PICTURE, Encoding
from gantoolkit.data.images import refuse_many_pixels
from gantoolkit.data.pixels import forms_of, resize_pixels, write_pixels
from gantoolkit.errors import DataError
from gantoolkit.inference.manifest import Manifest
from gantoolkit.inference.sources import SourceFile
from gantoolkit.inference.translator import Translator
from gantoolkit.inference.video import UnwritableError, translate_video, video_target

__all__ = ["Form", "Translated", "plan_targets", "translate_files"]

Form = Literal["png", "jpg", "tif", "npy"]


@dataclass(frozen=True)
class Translated:
    """What became of one file: where its translation lies, or why there is none.

    Args:
        kept: Whether it had been translated before, so that nothing was done.
    """

    source: SourceFile
    target: Path
    problem: str = ""
    kept: bool = False


def plan_targets(
    sources: Sequence[SourceFile], out: str | Path, *, form: Form | None = None, encoding: Encoding = PICTURE
) -> dict[SourceFile, Path]:
    """Where the translation of each file goes: below `out` with its name and its place in the tree.

    Args:
        sources: As `open_sources` finds them.
        out: Folder for the translations.
        form: File format of images; by default one that loses nothing of what the encoding has, the source's own if it is such,
            and for pictures the JPEG that was one.
        encoding: What translations are.

    Raises:
        DataError: When the form cannot hold the translations, or a translation would overwrite a source or another translation.
    """
    known = forms_of(encoding)
    if form and f".{form}" not in known:
        raise DataError(f"--form {form}: cannot hold images of {encoding}; {', '.join(known)} can")
    kept = (".png", ".jpg", ".jpeg") if encoding.is_picture else known if encoding.bits else (".tif", ".tiff", ".npy")
    targets: dict[SourceFile, Path] = {}
    taken: dict[Path, SourceFile] = {}
    originals = {source.path.resolve() for source in sources}
    for source in sources:
        place = Path(out) / source.place
        if source.is_video:
            target = video_target(place)
        else:
            target = place.with_suffix(
                f".{form}" if form else place.suffix if place.suffix.lower() in kept else known[0]
            )
        if target in taken:
            raise DataError(
                f"{source.name} and {taken[target].name} would both become {target}; translate them into two folders"
            )
        if target.resolve() in originals:
            raise DataError(f"{target}: would be overwritten by its own translation; choose another --out")
        targets[source], taken[target] = target, source
    return targets


def translate_files(
    translator: Translator,
    targets: dict[SourceFile, Path],
    *,
    batch_size: int = 8,
    resize: int | None = None,
    manifest: Manifest | None = None,
    progress: Callable[[SourceFile, int, int | None], None] = lambda video, done, total: None,
) -> Iterator[Translated]:
    """Translate files one batch after the other; a file that cannot be read is reported and passed over.

    Args:
        targets: As from `plan_targets`.
        batch_size: Images, or frames of a video, that are in memory at a time.
        resize: Make each image's shorter side so many pixels first; its translation has that size.
        manifest: Has what was translated before, which is passed over, and gets a line for every other file.
        progress: Told of a video how many frames of how many are done.

    Raises:
        DataError: When a translation cannot be written (a full disk, say).
    """
    todo: list[SourceFile] = []
    for source, target in targets.items():
        if manifest is not None and manifest.holds(source, target):
            yield Translated(source, target, kept=True)
        else:
            todo.append(source)
    for batch in _batch(todo, batch_size):
        for source, problem in _translate_batch(translator, batch, targets, batch_size, resize, progress):
            if manifest is not None:
                manifest.note(source, targets[source], problem)
            yield Translated(source, targets[source], problem)


def _batch(sources: Sequence[SourceFile], size: int) -> Iterator[Sequence[SourceFile]]:
    """Images in batches, each video by itself."""
    for is_video, group in itertools.groupby(sources, lambda source: source.is_video):
        files = list(group)
        step = 1 if is_video else size
        yield from (files[first : first + step] for first in range(0, len(files), step))


def _translate_batch(
    translator: Translator,
    batch: Sequence[SourceFile],
    targets: dict[SourceFile, Path],
    batch_size: int,
    resize: int | None,
    progress: Callable[[SourceFile, int, int | None], None],
) -> Iterator[tuple[SourceFile, str]]:
    """Each file, and what is wrong with it, if anything is."""
    encoding = translator.generator.source
    read: list[tuple[SourceFile, np.ndarray]] = []
    for source in batch:
        try:
            if source.is_video:
                translate_video(
                    translator,
                    source.path,
                    targets[source],
                    batch_size=batch_size,
                    size=lambda size: _resized(size, resize),
                    progress=lambda done, total: progress(batch[0], done, total),
                )
                yield source, ""
                continue
            pixels = translator.read(source.path)
            size = (pixels.shape[1], pixels.shape[0])
            wanted = _resized(size, resize)
            refuse_many_pixels(source.name, *wanted)
            read.append((source, pixels if wanted == size else resize_pixels(pixels, wanted, encoding)))
        except UnwritableError:
            raise
        except DataError as error:  # what it is called may not be where it lies, or not be said
            told = str(error).replace(str(source.path), source.name)
            yield source, told if source.name in told else f"{source.name}: {told}"
    for (source, _), made in zip(read, _translate_all(translator, [pixels for _, pixels in read]), strict=True):
        if isinstance(made, DataError):
            yield source, f"{source.name}: {made}"
        else:
            write_pixels(made, targets[source], translator.generator.target)
            yield source, ""


def _resized(size: tuple[int, int], shorter: int | None) -> tuple[int, int]:
    if shorter is None:
        return size
    width, height = (max(1, round(side * shorter / min(size))) for side in size)
    return width, height


def _translate_all(translator: Translator, images: Sequence[np.ndarray]) -> list[np.ndarray | DataError]:
    """Each image's translation, or why there is none; one that fails takes no other with it."""
    try:
        return [*translator.translate_pixels(images)]
    except DataError as error:
        return [error] if len(images) == 1 else [made for one in images for made in _translate_all(translator, [one])]

"""Translate files and folders: names and the folder tree are preserved, and a bad file is reported and skipped."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from gantoolkit.data.encoding import PICTURE, Encoding
from gantoolkit.data.images import check_pixel_count
from gantoolkit.data.pixels import resize_pixels
from gantoolkit.data.writing import supported_suffixes, write_pixels
from gantoolkit.errors import DataError
from gantoolkit.files.paths import user_path
from gantoolkit.inference.manifest import Manifest
from gantoolkit.inference.sources import SourceFile
from gantoolkit.inference.translator import Translator
from gantoolkit.inference.video import UnwritableError, translate_video, video_target

__all__ = ["FileResult", "Form", "plan_targets", "translate_files"]

Form = Literal["png", "jpg", "tif", "npy"]


@dataclass(frozen=True)
class FileResult:
    """The result for one file.

    Args:
        target: Path of the translation.
        problem: Why the file was not translated; empty if it was.
        up_to_date: Whether the file had already been translated, so that it was skipped.
    """

    source: SourceFile
    target: Path
    problem: str = ""
    up_to_date: bool = False


def plan_targets(
    sources: Sequence[SourceFile], out: str | Path, *, form: Form | None = None, encoding: Encoding = PICTURE
) -> dict[SourceFile, Path]:
    """Choose the path of each file's translation: below `out`, at the file's relative path.

    Args:
        sources: The files that `open_sources` lists.
        out: Folder for the translations.
        form: File format of images. By default, the source's own format if it stores the encoding without loss (for pictures,
            also JPEG), and otherwise a lossless one.
        encoding: Encoding of the translations.

    Raises:
        DataError: When the format cannot store the translations, or a translation would overwrite a source or another
            translation.
    """
    suffixes = supported_suffixes(encoding)
    if form and f".{form}" not in suffixes:
        raise DataError(f"--form {form}: cannot store images of {encoding}; use one of {', '.join(suffixes)}")
    preserved = suffixes if encoding.bits else (".tif", ".tiff", ".npy")
    if encoding.is_picture:
        preserved = (".png", ".jpg", ".jpeg")
    targets: dict[SourceFile, Path] = {}
    source_of: dict[Path, SourceFile] = {}
    originals = {source.path.resolve() for source in sources}
    for source in sources:
        target = user_path(out) / source.relative_path
        if source.is_video:
            target = video_target(target)
        elif form or target.suffix.lower() not in preserved:
            target = target.with_suffix(f".{form}" if form else suffixes[0])
        if target in source_of:
            raise DataError(
                f"{source.name} and {source_of[target].name} would both be written to {target}; "
                "translate them into two folders"
            )
        if target.resolve() in originals:
            raise DataError(f"{target}: would be overwritten by its own translation; choose another --out")
        targets[source], source_of[target] = target, source
    return targets


def translate_files(
    translator: Translator,
    targets: dict[SourceFile, Path],
    *,
    batch_size: int = 8,
    resize: int | None = None,
    manifest: Manifest | None = None,
    progress: Callable[[SourceFile, int, int | None], None] = lambda video, done, total: None,
) -> Iterator[FileResult]:
    """Translate files batch by batch; a file that cannot be read is reported and skipped.

    Args:
        targets: The result of `plan_targets`.
        batch_size: Images, or frames of a video, in memory at a time.
        resize: Length in pixels to which each image's shorter side is resized first; the translation has the new size.
        manifest: Lists the files already translated, which are skipped, and receives a line for every other file.
        progress: Called with a video, the number of translated frames, and the total if it is known.

    Raises:
        DataError: When a translation cannot be written, for example because the disk is full.
    """
    pending: list[SourceFile] = []
    for source, target in targets.items():
        if manifest is not None and manifest.holds(source, target):
            yield FileResult(source, target, up_to_date=True)
        else:
            pending.append(source)
    for batch in _batch(pending, batch_size):
        for source, problem in _translate_batch(translator, batch, targets, batch_size, resize, progress):
            if manifest is not None:
                manifest.record(source, targets[source], problem)
            yield FileResult(source, targets[source], problem)


def _batch(sources: Sequence[SourceFile], size: int) -> Iterator[Sequence[SourceFile]]:
    """Group images into batches; each video is a batch of its own."""
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
    """Translate a batch; yield each file with its problem, or with an empty string."""
    encoding = translator.generator.source
    images: list[tuple[SourceFile, np.ndarray]] = []
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
            new_size = _resized(size, resize)
            check_pixel_count(source.name, *new_size)
            images.append((source, pixels if new_size == size else resize_pixels(pixels, new_size, encoding)))
        except UnwritableError:
            raise
        except DataError as error:  # it may name a temporary path, or no file
            message = str(error).replace(str(source.path), source.name)
            yield source, message if source.name in message else f"{source.name}: {message}"
    translations = _translate_all(translator, [pixels for _, pixels in images])
    for (source, _), translation in zip(images, translations, strict=True):
        if isinstance(translation, DataError):
            yield source, f"{source.name}: {translation}"
        else:
            write_pixels(translation, targets[source], translator.generator.target)
            yield source, ""


def _resized(size: tuple[int, int], shorter_side: int | None) -> tuple[int, int]:
    if shorter_side is None:
        return size
    width, height = (max(1, round(side * shorter_side / min(size))) for side in size)
    return width, height


def _translate_all(translator: Translator, images: Sequence[np.ndarray]) -> list[np.ndarray | DataError]:
    """Each image's translation, or its error. If the batch fails, images are translated one by one."""
    try:
        return [*translator.translate_pixels(images)]
    except DataError as error:
        return [error] if len(images) == 1 else [_translate_all(translator, [image])[0] for image in images]

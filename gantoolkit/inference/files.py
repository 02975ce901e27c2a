"""Translate files and folders: a bad file is reported and skipped, and what a translation does not hold is noted."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gantoolkit.data.attributes import Attributes
from gantoolkit.data.images import TooManyPixelsError
from gantoolkit.data.notes import Note
from gantoolkit.data.pixels import DecodedImage, read_decoded_image
from gantoolkit.data.writing import UnwritableError, write_pixels
from gantoolkit.errors import DataError
from gantoolkit.inference.images import (
    ImageOptions,
    attributes_of_translation,
    finish_translation,
    resize_image,
    resized_size,
)
from gantoolkit.inference.manifest import Manifest
from gantoolkit.inference.pages import holds_all_pages, translate_pages
from gantoolkit.inference.sources import SourceFile
from gantoolkit.inference.translator import Translator
from gantoolkit.inference.video import translate_video

__all__ = ["FileResult", "translate_files"]

Progress = Callable[[SourceFile, int, int | None], None]

_BATCH_PIXELS = 1 << 24
"""Pixels at which a batch is full: larger images are translated one by one, so that few are in memory."""


@dataclass(frozen=True)
class FileResult:
    """The result for one file.

    Args:
        target: Path of the translation.
        problem: Why the file was not translated; empty if it was.
        up_to_date: Whether the file had already been translated, so that it was skipped.
        notes: What the user should know about how it was read, and what its translation does not hold.
    """

    source: SourceFile
    target: Path
    problem: str = ""
    up_to_date: bool = False
    notes: tuple[Note, ...] = ()


def translate_files(
    translator: Translator,
    targets: dict[SourceFile, Path],
    *,
    batch_size: int = 8,
    resize: int | None = None,
    keep_alpha: bool = False,
    max_pixels: int | None = None,
    manifest: Manifest | None = None,
    progress: Progress = lambda source, done, total: None,
) -> Iterator[FileResult]:
    """Translate files batch by batch; a file that cannot be read is reported and skipped.

    Args:
        targets: The result of `plan_targets`.
        batch_size: Images, pages of a file, or frames of a video, in memory at a time.
        resize: Length in pixels to which each image's shorter side is resized first; the translation has the new size.
        keep_alpha: Whether translations have the transparency of their images, if their format holds it.
        max_pixels: The largest number of pixels of an image; `MAX_PIXELS` by default. Videos are limited to that.
        manifest: Lists the files already translated, which are skipped, and receives a line for every other file.
        progress: Called with a video or a file of several pages, the number of translated frames or pages, and the total if
            it is known.

    Raises:
        DataError: When a translation cannot be written, for example because the disk is full.
    """
    job = _Job(translator, targets, batch_size, ImageOptions(resize, keep_alpha, max_pixels), progress)
    pending: list[SourceFile] = []
    for source, target in targets.items():
        if manifest is not None and manifest.holds(source, target):
            yield FileResult(source, target, up_to_date=True, notes=manifest.notes(target))
        else:
            pending.append(source)
    for result in job.run(pending):
        if manifest is not None:
            manifest.record(result.source, result.target, result.problem, result.notes)
        yield result


@dataclass(frozen=True)
class _Image:
    """An image that was read: as it is translated, and the attributes of its translation."""

    source: SourceFile
    decoded: DecodedImage
    attributes: Attributes
    notes: tuple[Note, ...]


@dataclass(frozen=True)
class _Job:
    translator: Translator
    targets: dict[SourceFile, Path]
    batch_size: int
    options: ImageOptions
    progress: Progress

    def run(self, sources: Sequence[SourceFile]) -> Iterator[FileResult]:
        """Translate files in their order, images in batches; each file with several pages and each video alone."""
        batch: list[_Image] = []
        for source in sources:
            image = self._translate_alone(source)
            if isinstance(image, FileResult):
                yield from self._translate_batch(batch)
                batch = []
                yield image
                continue
            batch.append(image)
            pixels = sum(each.decoded.pixels[..., 0].size for each in batch)
            if len(batch) == self.batch_size or pixels >= _BATCH_PIXELS:
                yield from self._translate_batch(batch)
                batch = []
        yield from self._translate_batch(batch)

    def _translate_alone(self, source: SourceFile) -> FileResult | _Image:
        """Translate a file that is not one image, or report it as bad; an image is returned instead."""
        target = self.targets[source]
        try:
            if source.is_video:
                self._translate_video(source)
                return FileResult(source, target)
            if holds_all_pages(self.translator, source.path, target, self.options):
                return FileResult(source, target, notes=self._translate_pages(source))
            return self._read(source)
        except UnwritableError:
            raise
        except DataError as error:
            return FileResult(source, target, problem=_describe(error, source))

    def _translate_video(self, source: SourceFile) -> None:
        translate_video(
            self.translator,
            source.path,
            self.targets[source],
            batch_size=self.batch_size,
            size=lambda size: resized_size(size, self.options.resize),
            progress=lambda done, total: self.progress(source, done, total),
        )

    def _translate_pages(self, source: SourceFile) -> tuple[Note, ...]:
        return translate_pages(
            self.translator,
            source.path,
            self.targets[source],
            self.options,
            batch_size=self.batch_size,
            progress=lambda done, total: self.progress(source, done, total),
        )

    def _read(self, source: SourceFile) -> _Image:
        generator = self.translator.generator
        image = read_decoded_image(source.path, generator.source, max_pixels=self.options.max_pixels)
        size = (image.pixels.shape[1], image.pixels.shape[0])
        attributes, notes = attributes_of_translation(
            source.path, size, generator.source, generator.target, self.targets[source], self.options
        )
        return _Image(source, resize_image(source.name, image, generator.source, self.options), attributes, notes)

    def _translate_batch(self, batch: Sequence[_Image]) -> Iterator[FileResult]:
        generator = self.translator.generator
        translations = _translate_all(self.translator, [image.decoded.pixels for image in batch])
        for image, translation in zip(batch, translations, strict=True):
            source, target = image.source, self.targets[image.source]
            if isinstance(translation, DataError):
                yield FileResult(source, target, problem=_describe(translation, source))
                continue
            pixels, notes = finish_translation(
                translation, image.decoded, generator.source, generator.target, target, self.options
            )
            try:
                write_pixels(pixels, target, generator.target, attributes=image.attributes)
            except UnwritableError:
                raise
            except DataError as error:  # the format needs a package that is not installed
                yield FileResult(source, target, problem=_describe(error, source))
            else:
                yield FileResult(source, target, notes=(*notes, *image.notes))


def _describe(error: DataError, source: SourceFile) -> str:
    message = str(error).replace(str(source.path), source.name)  # it may name a temporary path, or no file
    message = message if source.name in message else f"{source.name}: {message}"
    return f"{message}; --max-pixels allows more" if isinstance(error, TooManyPixelsError) else message


def _translate_all(translator: Translator, images: Sequence[np.ndarray]) -> list[np.ndarray | DataError]:
    """Each image's translation, or its error. If the batch fails, images are translated one by one."""
    try:
        return [*translator.translate_pixels(images)]
    except DataError as error:
        return [error] if len(images) == 1 else [_translate_all(translator, [image])[0] for image in images]

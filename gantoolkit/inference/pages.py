"""Translate the pages of a TIFF file and the frames of an animation, each into a file of the same kind."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from gantoolkit.data.animation import Timing, is_animation, open_animation, write_animation
from gantoolkit.data.attributes import Attributes
from gantoolkit.data.notes import SEVERAL_FRAMES, SEVERAL_PAGES, Note
from gantoolkit.data.pixels import DecodedImage, count_pages, decode_pil_image, read_decoded_image, read_pages
from gantoolkit.data.writing import holds_frames, holds_pages, write_pages
from gantoolkit.inference.images import (
    ImageOptions,
    attributes_of_translation,
    finish_translation,
    resize_image,
)
from gantoolkit.inference.translator import Translator

__all__ = ["holds_all_pages", "translate_pages"]

_TIMING_LOST = Note("is an animation, whose frames became pages without durations", passed_over=True)


def holds_all_pages(translator: Translator, source: Path, target: Path, options: ImageOptions) -> bool:
    """Whether a file has several pages or frames, and the format of its translation holds them.

    Raises:
        DataError: When the header of the file cannot be read.
    """
    if count_pages(source, translator.generator.source) == 1:
        return False
    return holds_pages(target) or (holds_frames(target, translator.generator.target) and is_animation(source))


def translate_pages(
    translator: Translator,
    source: Path,
    target: Path,
    options: ImageOptions,
    *,
    batch_size: int = 8,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Note, ...]:
    """Translate all pages or frames of a file, for which `holds_all_pages`.

    A TIFF file is written page by page. An animation becomes an APNG file with the same timing, of which all frames are in
    memory; or a TIFF file of its frames.

    Args:
        batch_size: Pages in memory at a time.
        progress: Called with the number of translated pages and the number of all.

    Returns:
        What the user should know, and what the translation does not hold.

    Raises:
        DataError: When a page cannot be read or translated.
        UnwritableError: When the translation cannot be written.
    """
    job = _Pages(translator, source, target, options, batch_size, progress)
    if is_animation(source):
        job.translate_animation()
    else:
        job.translate_stack()
    return tuple(note for note in dict.fromkeys(job.notes) if note not in (SEVERAL_PAGES, SEVERAL_FRAMES))


class _Pages:
    """The translation of one file of several pages."""

    def __init__(
        self,
        translator: Translator,
        source: Path,
        target: Path,
        options: ImageOptions,
        batch_size: int,
        progress: Callable[[int, int], None],
    ) -> None:
        self.translator, self.source, self.target, self.options = translator, source, target, options
        self.batch_size, self.progress = batch_size, progress
        self.notes: list[Note] = []

    def translate_stack(self) -> None:
        encoding = self.translator.generator.source
        count = count_pages(self.source, encoding)
        images = read_pages(self.source, encoding, max_pixels=self.options.max_pixels)
        self._write_pages(images, count)

    def translate_animation(self) -> None:
        durations: list[float] = []

        def read() -> Iterator[DecodedImage]:
            for index, (frame, duration) in enumerate(animation.frames()):
                durations.append(duration)
                yield self._decode_frame(frame, index)

        with open_animation(self.source, max_pixels=self.options.max_pixels) as animation:
            if holds_pages(self.target):
                self.notes.append(_TIMING_LOST)
                self._write_pages(read(), animation.count)
                return
            images = read()
            first = next(images)
            attributes = self._read_attributes(first)
            frames = list(self._translate(itertools.chain([first], images), animation.count))
            timing = Timing(tuple(durations), animation.loop, animation.has_default_image)
        write_animation(_alike(frames), self.target, timing, attributes=attributes)

    def _decode_frame(self, frame: Image.Image, index: int) -> DecodedImage:
        encoding = self.translator.generator.source
        if not encoding.is_picture:
            return read_decoded_image(self.source, encoding, page=index, max_pixels=self.options.max_pixels)
        return decode_pil_image(frame, encoding, name=str(self.source))

    def _write_pages(self, images: Iterator[DecodedImage], count: int) -> None:
        first = next(images)
        attributes = self._read_attributes(first)
        translations = self._translate(itertools.chain([first], images), count)
        target = self.translator.generator.target
        write_pages(translations, self.target, target, count=count, attributes=attributes)

    def _translate(self, images: Iterable[DecodedImage], count: int) -> Iterator[np.ndarray]:
        """The values to write for each page, a batch at a time."""
        generator, done, images = self.translator.generator, 0, iter(images)
        while batch := list(itertools.islice(images, self.batch_size)):
            resized = [resize_image(str(self.source), image, generator.source, self.options) for image in batch]
            translations = self.translator.translate_pixels([image.pixels for image in resized])
            for image, translation in zip(resized, translations, strict=True):
                pixels, notes = finish_translation(
                    translation, image, generator.source, generator.target, self.target, self.options
                )
                self.notes += notes
                yield pixels
            done += len(batch)
            self.progress(done, count)

    def _read_attributes(self, first: DecodedImage) -> Attributes:
        generator = self.translator.generator
        size = (first.pixels.shape[1], first.pixels.shape[0])
        attributes, notes = attributes_of_translation(
            self.source, size, generator.source, generator.target, self.target, self.options
        )
        self.notes += notes
        return attributes


def _alike(frames: list[np.ndarray]) -> list[np.ndarray]:
    """Frames with the same number of channels: opaque ones get an opacity if others have one."""
    channels = max(frame.shape[2] for frame in frames)
    return [
        frame if frame.shape[2] == channels else np.pad(frame, ((0, 0), (0, 0), (0, 1)), constant_values=255)
        for frame in frames
    ]

"""Animations: the frames of GIF, WebP and APNG files, and APNG files with the same timing."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from gantoolkit.data.attributes import Attributes
from gantoolkit.data.images import (
    ANY_NUMBER,
    MAX_PIXELS,
    TooManyPixelsError,
    UnknownFormatError,
    convert_read_errors,
    open_image,
)
from gantoolkit.data.writing import UnwritableError, image_options
from gantoolkit.files.atomic import atomic_write, describe_write_error

__all__ = ["Animation", "Timing", "is_animation", "open_animation", "write_animation"]

_FORMATS = ("GIF", "WEBP", "PNG")
_ONCE = 1


class Animation:
    """An open animation.

    Args:
        file: The open file.
        path: Its path, for error messages.
    """

    def __init__(self, file: Image.Image, path: Path) -> None:
        self._file, self._path = file, path
        self.count = int(getattr(file, "n_frames", 1))
        self.loop = int(file.info.get("loop", _ONCE))
        """How often the animation is played, as the file states it; 0 is endless."""
        self.has_default_image = bool(file.info.get("default_image"))
        """Whether the first frame is shown only by programs that show no animations (APNG)."""

    def frames(self) -> Iterator[tuple[Image.Image, float]]:
        """Each frame, decoded, and its duration in milliseconds.

        Raises:
            DataError: When a frame is damaged.
        """
        for index in range(self.count):
            with convert_read_errors(self._path):
                self._file.seek(index)
                self._file.load()
            yield self._file, float(self._file.info.get("duration", 0))


@dataclass(frozen=True)
class Timing:
    """When the frames of an animation are shown.

    Args:
        durations: The duration of each frame in milliseconds.
        loop: How often the animation is played; 0 is endless.
        has_default_image: Whether the first frame is not part of the animation.
    """

    durations: tuple[float, ...]
    loop: int
    has_default_image: bool


def is_animation(path: str | Path) -> bool:
    """Whether a file is a GIF, WebP or APNG file of several frames, according to its header.

    Raises:
        DataError: When the file cannot be read.
    """
    with suppress(UnknownFormatError), open_image(path, max_pixels=ANY_NUMBER) as file:
        return file.format in _FORMATS and getattr(file, "n_frames", 1) > 1
    return False  # such as a TIFF file of values that Pillow does not know


@contextmanager
def open_animation(path: str | Path, *, max_pixels: int | None = None) -> Iterator[Animation]:
    """Open an animation.

    Args:
        max_pixels: The largest number of pixels of all frames together, which an APNG file needs in memory; `MAX_PIXELS` by
            default.

    Raises:
        TooManyPixelsError: When it has more.
        DataError: When the file cannot be read.
    """
    with open_image(path, max_pixels=max_pixels) as file:
        animation = Animation(file, Path(path))
        limit, (width, height) = MAX_PIXELS if max_pixels is None else max_pixels, file.size
        if animation.count * width * height > limit:
            raise TooManyPixelsError(
                f"{path}: {animation.count} frames of {width}×{height} pixels are more than the {limit:,} allowed"
            )
        yield animation


def write_animation(
    frames: Sequence[np.ndarray], path: str | Path, timing: Timing, *, attributes: Attributes | None = None
) -> None:
    """Write an APNG file atomically.

    Args:
        frames: The levels (H, W, C) of each frame: gray, gray and opacity, RGB, or RGB and opacity; alike for all frames.
        timing: When the frames are shown.
        attributes: The resolution and EXIF data to write.

    Raises:
        UnwritableError: When the file cannot be written. No partial file remains.
    """
    path = Path(path)
    first, *others = [Image.fromarray(frame[..., 0] if frame.shape[2] == 1 else frame) for frame in frames]
    try:
        with atomic_write(path) as part:
            first.save(
                part,
                "PNG",
                save_all=True,
                append_images=others,
                duration=list(timing.durations[timing.has_default_image :]),
                loop=timing.loop,
                default_image=timing.has_default_image,
                **image_options(attributes or Attributes()),
            )
    except OSError as error:
        raise UnwritableError(describe_write_error(path, error)) from error

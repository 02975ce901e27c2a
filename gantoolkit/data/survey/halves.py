"""Check whether pictures really show two images side by side."""

from collections.abc import Sequence

import numpy as np

from gantoolkit.data.encoding import Encoding
from gantoolkit.data.evaluation_images import evenly_spaced
from gantoolkit.data.images import ImageFile
from gantoolkit.data.pixels import read_pixels
from gantoolkit.errors import DataError

__all__ = ["are_single_images"]

_SAMPLES = 20
_NEIGHBORS = 16
_MIN_INFORMATIVE = 3
_MIN_SHARE = 0.8
_MAX_JUMP = 2.0


def are_single_images(files: Sequence[ImageFile], encoding: Encoding) -> bool:
    """Whether pictures continue across their middle, as a single image does, where two images side by side meet abruptly."""
    jumps = [jump for file in evenly_spaced(files, _SAMPLES) if (jump := _measure_jump(file, encoding)) is not None]
    continuous = sum(jump <= _MAX_JUMP for jump in jumps)
    return len(jumps) >= _MIN_INFORMATIVE and continuous >= _MIN_SHARE * len(jumps)


def _measure_jump(file: ImageFile, encoding: Encoding) -> float | None:
    """The difference of the two columns in the middle, relative to those beside them; None if these are of one color."""
    try:
        pixels = read_pixels(ImageFile(file.path), encoding)
    except DataError:
        return None
    middle = pixels.shape[1] // 2
    near = pixels[:, max(0, middle - _NEIGHBORS) : middle + _NEIGHBORS].astype(np.float32)
    differences = np.abs(np.diff(near, axis=1)).mean(axis=(0, 2))
    seam = min(_NEIGHBORS, middle) - 1
    usual = float(np.median(np.delete(differences, seam))) if len(differences) > 1 else 0.0
    return float(differences[seam]) / usual if usual > (encoding.high - encoding.low) / 255 else None

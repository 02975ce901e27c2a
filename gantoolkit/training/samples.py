"""Grids of sample images: the same inputs every time, so that a run can be watched."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from gantoolkit.data import Dataset
from gantoolkit.data.augmentation import prepare
from gantoolkit.data.encoding import Encoding, encoding_of
from gantoolkit.data.images import ImageFile, draw_tensor
from gantoolkit.data.pixels import read_pixels
from gantoolkit.errors import DataError
from gantoolkit.plugins import System
from gantoolkit.recipes.settings import DataSettings

__all__ = ["draw_grid", "evaluation_mode", "make_samples", "read_samples"]

_HEADING = 18
_GAP = 2


def read_samples(dataset: Dataset, settings: DataSettings, count: int) -> dict[str, Tensor]:
    """At most `count` images of each domain, spread evenly over its files, as one batch without augmentation.

    Where one cannot be read, the next one takes its place.

    Raises:
        DataError: When a domain holds none that can be read.
    """
    A, B = ((dataset.files(domain), encoding_of(settings, domain)) for domain in "AB")
    if dataset.pairing == "paired":  # a pair is left out together
        images_A, images_B = _read_rows([A, B], settings, count)
    else:
        (images_A,), (images_B,) = _read_rows([A], settings, count), _read_rows([B], settings, count)
    rows = min(len(images_A), len(images_B))
    return {"A": images_A[:rows], "B": images_B[:rows]}


def _read_rows(
    columns: Sequence[tuple[tuple[ImageFile, ...], Encoding]], settings: DataSettings, count: int
) -> tuple[Tensor, ...]:
    """One batch for each column of files; a row is taken where all its files can be read."""
    length = len(columns[0][0])
    wanted = min(count, length)
    rows: list[list[Tensor]] = []
    reason: DataError | None = None
    for start, stop in itertools.pairwise(row * length // wanted for row in range(wanted + 1)):
        for place in range(start, stop):
            try:
                rows.append([prepare(read_pixels(files[place], form), settings, form) for files, form in columns])
                break
            except DataError as error:
                reason = error
    if not rows:
        raise DataError(f"no image can be read for the samples; the last one: {reason}")
    return tuple(torch.stack(column) for column in zip(*rows, strict=True))


def make_samples(system: System, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What the system makes of `batch` in evaluation mode, by name; its mode is restored."""
    with evaluation_mode(system), torch.no_grad():
        return system.sample(batch)


@contextmanager
def evaluation_mode(system: System) -> Iterator[None]:
    """Every network in evaluation mode; afterwards each in the mode that it was in."""
    modes = {name: network.training for name, network in system.networks.items()}
    for network in system.networks.values():
        network.eval()
    try:
        yield
    finally:
        for name, network in system.networks.items():
            network.train(modes[name])


def draw_grid(columns: Mapping[str, Tensor]) -> Image.Image:
    """A column for each name, a row for each image; images are (N, C, H, W) in [−1, 1], as `draw_tensor` shows them."""
    height, width = next(iter(columns.values())).shape[-2:]
    rows = min(len(images) for images in columns.values())
    size = (len(columns) * (width + _GAP) - _GAP, _HEADING + rows * (height + _GAP) - _GAP)
    grid = Image.new("RGB", size, "white")
    pen, font = ImageDraw.Draw(grid), ImageFont.load_default(11)
    for column, (name, images) in enumerate(columns.items()):
        left = column * (width + _GAP)
        pen.text((left + 2, 2), name, fill="black", font=font)
        for row in range(rows):
            grid.paste(draw_tensor(images[row]), (left, _HEADING + row * (height + _GAP)))
    return grid

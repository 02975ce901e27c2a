"""Grids of sample images: the same inputs every time, to watch a run."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from gantoolkit.data import Dataset
from gantoolkit.data.augmentation import check_pair, prepare, prepared_size
from gantoolkit.data.encoding import Encoding, encoding_of
from gantoolkit.data.images import ImageFile, render_tensor
from gantoolkit.data.pixels import read_pixels
from gantoolkit.errors import DataError
from gantoolkit.plugins import System
from gantoolkit.recipes.settings import DataSettings

__all__ = ["draw_grid", "evaluation_mode", "make_samples", "read_samples"]

_HEADING = 18
_GAP = 2


def read_samples(dataset: Dataset, settings: DataSettings, count: int) -> dict[str, Tensor]:
    """At most `count` images of each domain, evenly spaced over its files, as one batch without augmentation.

    An unreadable image is replaced by the next one.

    Raises:
        DataError: When a domain has no readable image.
    """
    A, B = ((dataset.files(domain), encoding_of(settings, domain)) for domain in "AB")
    if dataset.pairing == "paired":  # an unreadable image excludes its pair
        images_A, images_B = _read_rows([A, B], settings, count)
    else:
        (images_A,), (images_B,) = _read_rows([A], settings, count), _read_rows([B], settings, count)
    rows = min(len(images_A), len(images_B))
    return {"A": images_A[:rows], "B": images_B[:rows]}


def _read_rows(
    columns: Sequence[tuple[tuple[ImageFile, ...], Encoding]], settings: DataSettings, count: int
) -> tuple[Tensor, ...]:
    """One batch for each column of files; rows with an unreadable file are skipped."""
    length = len(columns[0][0])
    count = min(count, length)
    rows: list[list[Tensor]] = []
    reason: DataError | None = None
    for start, stop in itertools.pairwise(row * length // count for row in range(count + 1)):
        for index in range(start, stop):
            try:
                rows.append(_read_row([(files[index], encoding) for files, encoding in columns], settings))
                break
            except DataError as error:
                reason = error
    if not rows:
        raise DataError(f"no sample image can be read; the last one: {reason}")
    return tuple(torch.stack(column) for column in zip(*rows, strict=True))


def _read_row(cells: Sequence[tuple[ImageFile, Encoding]], settings: DataSettings) -> list[Tensor]:
    """Read one image, or both images of a pair.

    Raises:
        DataError: When an image cannot be read, or those of a pair have different sizes.
    """
    pixels = [read_pixels(file, encoding) for file, encoding in cells]
    if len(cells) == 2:
        size, partner_size = (prepared_size(values, settings) for values in pixels)
        try:
            check_pair(size, str(cells[1][0]), partner_size, settings)
        except DataError as error:
            raise DataError(f"{cells[0][0]} {error}") from None
    return [prepare(values, settings, encoding) for values, (_, encoding) in zip(pixels, cells, strict=True)]


def make_samples(system: System, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The sample images of a system for `batch`, by name, with its networks in evaluation mode meanwhile."""
    with evaluation_mode(system), torch.no_grad():
        return system.sample(batch)


@contextmanager
def evaluation_mode(system: System) -> Iterator[None]:
    """Set every network to evaluation mode, and restore its mode afterwards."""
    modes = {name: network.training for name, network in system.networks.items()}
    for network in system.networks.values():
        network.eval()
    try:
        yield
    finally:
        for name, network in system.networks.items():
            network.train(modes[name])


def draw_grid(columns: Mapping[str, Tensor]) -> Image.Image:
    """A grid with one column per name and one row per image (N, C, H, W) in [−1, 1], drawn as by `render_tensor`."""
    height, width = next(iter(columns.values())).shape[-2:]
    rows = min(len(images) for images in columns.values())
    size = (len(columns) * (width + _GAP) - _GAP, _HEADING + rows * (height + _GAP) - _GAP)
    grid = Image.new("RGB", size, "white")
    pen, font = ImageDraw.Draw(grid), ImageFont.load_default(11)
    for column, (name, images) in enumerate(columns.items()):
        left = column * (width + _GAP)
        pen.text((left + 2, 2), name, fill="black", font=font)
        for row in range(rows):
            grid.paste(render_tensor(images[row]), (left, _HEADING + row * (height + _GAP)))
    return grid

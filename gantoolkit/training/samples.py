"""Grids of sample images: the same inputs every time, so that a run can be watched."""

from collections.abc import Mapping

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from gantoolkit.data import Dataset, from_tensor, read_image
from gantoolkit.data.augmentation import prepare
from gantoolkit.errors import DataError
from gantoolkit.plugins import System
from gantoolkit.settings import DataSettings

__all__ = ["draw_grid", "draw_samples", "read_samples"]

_HEADING = 18
_GAP = 2


def read_samples(dataset: Dataset, settings: DataSettings, count: int) -> dict[str, Tensor]:
    """The first readable images of both domains as one batch, without augmentation.

    Raises:
        DataError: When a domain holds none.
    """
    batch: dict[str, Tensor] = {}
    for domain, files, channels in (
        ("A", dataset.A, settings.channels_A),
        ("B", dataset.B, settings.channels_B),
    ):
        images: list[Tensor] = []
        reason: Exception | None = None
        for path in files:
            if len(images) == count:
                break
            try:
                images.append(prepare(read_image(path, channels), settings))
            except DataError as error:
                reason = error
        if not images:
            raise DataError(f"domain {domain}: no image can be read; the last one: {reason}")
        batch[domain] = torch.stack(images)
    rows = min(len(images) for images in batch.values())
    return {domain: images[:rows] for domain, images in batch.items()}


def draw_samples(system: System, batch: Mapping[str, Tensor]) -> Image.Image:
    """What the system makes of `batch` in evaluation mode, as a grid; its mode is restored."""
    modes = {name: network.training for name, network in system.networks.items()}
    for network in system.networks.values():
        network.eval()
    with torch.no_grad():
        columns = system.sample(batch)
    for name, network in system.networks.items():
        network.train(modes[name])
    return draw_grid(columns)


def draw_grid(columns: Mapping[str, Tensor]) -> Image.Image:
    """A column for each name, a row for each image; images are (N, C, H, W) in [−1, 1]."""
    height, width = next(iter(columns.values())).shape[-2:]
    rows = min(len(images) for images in columns.values())
    size = (len(columns) * (width + _GAP) - _GAP, _HEADING + rows * (height + _GAP) - _GAP)
    grid = Image.new("RGB", size, "white")
    pen, font = ImageDraw.Draw(grid), ImageFont.load_default(11)
    for column, (name, images) in enumerate(columns.items()):
        left = column * (width + _GAP)
        pen.text((left + 2, 2), name, fill="black", font=font)
        for row in range(rows):
            grid.paste(from_tensor(images[row]), (left, _HEADING + row * (height + _GAP)))
    return grid

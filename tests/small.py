"""Small images, settings and batches that tests and documentation share."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from gantoolkit.recipe import Recipe

TINY = {
    "generator": {"name": "resnet", "width": 4, "blocks": 1},
    "discriminator": {"name": "patchgan", "width": 4, "layers": 1},
    "data.load_size": 20,
    "data.crop_size": 16,
    "training.epochs": 2,
    "training.log_every": 2,
    "training.sample_every": 4,
    "training.checkpoint_every": 4,
    "training.samples": 2,
    "training.deterministic": True,
}


def make_image(seed: int, size: tuple[int, int] = (40, 36)) -> Image.Image:
    """A picture with soft shapes, not noise alone: what JPEG and resizing do to it is mild."""
    generator = np.random.default_rng(seed)
    small = generator.integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def make_dataset(root: Path, *, count_A: int = 5, count_B: int = 4, test: int = 2) -> Path:
    for folder, count, first in (
        ("trainA", count_A, 0),
        ("trainB", count_B, 100),
        ("testA", test, 200),
        ("testB", test, 300),
    ):
        if count:
            (root / folder).mkdir(parents=True)
        for number in range(count):
            make_image(first + number).save(root / folder / f"{number:02d}.png")
    return root


def batch_of(
    recipe: Recipe, count: int = 1, seed: int = 0, dtype: torch.dtype = torch.float32
) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    side = recipe.data.crop_size
    channels = {"A": recipe.data.channels_A, "B": recipe.data.channels_B}
    return {
        domain: torch.rand(count, channels[domain], side, side, generator=generator, dtype=dtype) * 2 - 1
        for domain in "AB"
    }

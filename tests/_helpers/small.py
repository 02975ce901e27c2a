"""Small images, settings and batches for tests and documentation."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from gantoolkit.recipes import Recipe, cyclegan

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


TINY_ARGUMENTS = [
    "--set=generator.width=4",
    "--set=generator.blocks=1",
    "--set=discriminator.width=4",
    "--set=discriminator.layers=1",
    "--set=data.load_size=20",
    "--set=data.crop_size=16",
    "--device=cpu",
]
"""The same networks and sizes on the command line."""


def make_tiny() -> Recipe:
    """CycleGAN with networks that run in milliseconds: two epochs of five steps on `make_dataset`."""
    return cyclegan().swap({**TINY, "image_pool.size": 3})


def make_lively() -> Recipe:
    """`make_tiny` with dropout, identity terms and a high learning rate, so that every source of randomness is used."""
    return make_tiny().swap({"identity_weight": 5.0, "generator.dropout": 0.5, "optimizer.lr": 1e-2})


def make_image(seed: int, size: tuple[int, int] = (40, 36)) -> Image.Image:
    """An image of soft shapes, which JPEG and resizing change only a little."""
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


def make_files(root: Path, *names: str) -> Path:
    """Create files: images of different content where the suffix is that of a picture, and a line of text otherwise."""
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() in (".png", ".jpg", ".tif", ".webp", ".gif"):
            make_image(number, (80, 40)).save(path)
        else:
            path.write_text("text")
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


def official_resnet(blocks: int, width: int, dropout: bool, statistics: bool, prefix: str) -> dict[str, torch.Tensor]:
    """Random weights under official names: `model.N`, residual blocks `conv_block.M`, M shifted by a dropout layer."""
    weights: dict[str, torch.Tensor] = {}

    def add(layer: str, shape: tuple[int, ...], norm: int | None) -> None:
        weights[f"{prefix}{layer}.weight"] = torch.rand(shape)
        channels = shape[0]
        weights[f"{prefix}{layer}.bias"] = torch.rand(channels)
        if statistics and norm is not None:
            norm_layer = f"{prefix}{layer.rpartition('.')[0]}.{norm}"
            weights[f"{norm_layer}.running_mean"] = torch.rand(channels)
            weights[f"{norm_layer}.running_var"] = torch.rand(channels)
            weights[f"{norm_layer}.num_batches_tracked"] = torch.tensor(5)

    wide = 4 * width
    last = 10 + blocks
    # The last block first: the order must follow from the names, not from the file.
    for block in reversed(range(10, last)):
        add(f"model.{block}.conv_block.{6 if dropout else 5}", (wide, wide, 3, 3), 7 if dropout else 6)
        add(f"model.{block}.conv_block.1", (wide, wide, 3, 3), 2)
    add("model.1", (width, 3, 7, 7), 2)
    add("model.4", (2 * width, width, 3, 3), 5)
    add("model.7", (wide, 2 * width, 3, 3), 8)
    for index, (source, target) in ((last, (wide, 2 * width)), (last + 3, (2 * width, width))):
        weights[f"{prefix}model.{index}.weight"] = torch.rand(source, target, 3, 3)
        weights[f"{prefix}model.{index}.bias"] = torch.rand(target)
    weights[f"{prefix}model.{last + 7}.weight"] = torch.rand(3, width, 7, 7)
    weights[f"{prefix}model.{last + 7}.bias"] = torch.rand(3)
    return weights

"""The demo's data set, made from the photographs in scikit-image without any download.

Domain A shows photographs as sepia prints, domain B as cyanotypes, the blue prints of early photography. Both are functions of
the luminance, so each image of A has exactly one correct translation to B, and vice versa. Training never sees these pairs:
its images of A and B are cropped from different parts of the photographs.
"""

import random
import shutil
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image

from gantoolkit.data import write_image
from gantoolkit.errors import DataError, requires_extra
from gantoolkit.runtime.seeds import derive_seed

__all__ = ["TEST_PHOTOGRAPHS", "TRAINING_PHOTOGRAPHS", "load_photograph", "make_demo_set", "to_cyanotype", "to_sepia"]

TRAINING_PHOTOGRAPHS = ("astronaut", "camera", "coins", "motorcycle_left", "rocket", "brick", "grass", "gravel")
TEST_PHOTOGRAPHS = ("chelsea", "coffee")

_CROP_SIDE = 80
_TEST_SIDE = 64
_STRIPES = 4
"""Number of vertical stripes into which a photograph is cut; they belong to A and B alternately."""

_PAPER_SEPIA, _INK_SEPIA = (1.0, 0.93, 0.72), (0.20, 0.06, 0.0)
_PAPER_CYANOTYPE, _INK_CYANOTYPE = (0.90, 1.0, 1.0), (0.02, 0.08, 0.35)
"""Colors (red, green, blue in 0…1) of the brightest and the darkest tone."""


def to_sepia(photograph: Image.Image) -> Image.Image:
    """Turn a photograph into a brown print."""
    return _print(photograph, _PAPER_SEPIA, _INK_SEPIA)


def to_cyanotype(photograph: Image.Image) -> Image.Image:
    """Turn a photograph into a blue print."""
    return _print(photograph, _PAPER_CYANOTYPE, _INK_CYANOTYPE)


def make_demo_set(root: Path, *, crops: int = 300, seed: int = 0) -> Path:
    """Make the data set unless it exists: trainA and trainB are unpaired; testA and testB form pairs of equal names.

    Args:
        root: Folder of the data set; it appears once it is complete.
        crops: Number of training images in each domain, 80×80; test images are 64×64.
        seed: Seed for the positions of the crops.

    Returns:
        `root`.

    Raises:
        DataError: When scikit-image is not installed, or the folder cannot be written.
    """
    if root.is_dir():
        return root
    part = root.with_name(f".{root.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    rng = random.Random(derive_seed(seed, "demo crops"))
    stripes: dict[str, list[Image.Image]] = {"A": [], "B": []}
    for name in TRAINING_PHOTOGRAPHS:
        for index, stripe in enumerate(_cut_stripes(load_photograph(name))):
            stripes["AB"[index % 2]].append(stripe)
    for domain, transform in (("A", to_sepia), ("B", to_cyanotype)):
        for index in range(crops):
            stripe = stripes[domain][index % len(stripes[domain])]
            left, top = rng.randint(0, stripe.width - _CROP_SIDE), rng.randint(0, stripe.height - _CROP_SIDE)
            crop = stripe.crop((left, top, left + _CROP_SIDE, top + _CROP_SIDE))
            write_image(transform(crop), part / f"train{domain}" / f"{index:03d}.png")
    for name in TEST_PHOTOGRAPHS:
        photograph = load_photograph(name)
        for top in range(0, photograph.height - _TEST_SIDE + 1, _TEST_SIDE):
            for left in range(0, photograph.width - _TEST_SIDE + 1, _TEST_SIDE):
                tile = photograph.crop((left, top, left + _TEST_SIDE, top + _TEST_SIDE))
                for domain, transform in (("A", to_sepia), ("B", to_cyanotype)):
                    write_image(transform(tile), part / f"test{domain}" / f"{name}-{top:03d}-{left:03d}.png")
        for domain, transform in (("A", to_sepia), ("B", to_cyanotype)):
            write_image(transform(photograph), part / f"whole{domain}" / f"{name}.png")
    part.replace(root)
    return root


def load_photograph(name: str) -> Image.Image:
    """Read one of the photographs in scikit-image as RGB.

    Raises:
        DataError: When scikit-image is not installed, or does not contain it.
    """
    with requires_extra("demo", "the demonstration", DataError):
        import skimage
    # Read from the package's folder, as the loading functions of scikit-image may download missing files.
    paths = sorted((Path(skimage.__file__).parent / "data").glob(f"{name}.*"))
    if not paths:
        raise DataError(
            f"scikit-image {version('scikit-image')} does not contain the photograph '{name}'; install 0.25 or 0.26"
        )
    return Image.open(paths[0]).convert("RGB")


def _cut_stripes(photograph: Image.Image) -> list[Image.Image]:
    edges = [round(index * photograph.width / _STRIPES) for index in range(_STRIPES + 1)]
    return [photograph.crop((left, 0, right, photograph.height)) for left, right in pairwise(edges)]


def _print(photograph: Image.Image, paper: tuple[float, ...], ink: tuple[float, ...]) -> Image.Image:
    luminance = np.asarray(photograph.convert("L"), dtype=np.float64)[..., None] / 255
    colors = luminance * np.array(paper) + (1 - luminance) * np.array(ink)
    return Image.fromarray(np.rint(colors * 255).astype(np.uint8))

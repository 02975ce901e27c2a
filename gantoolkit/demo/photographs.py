"""The demonstration's data set, made from photographs that scikit-image ships: nothing is downloaded.

Domain A shows photographs as sepia prints, domain B as cyanotypes, the blue prints of early photography. Both are made from
the picture's luminance, so each image of A has exactly one right translation into B, and back; training never sees it, since
its A and its B are cut from different parts of the photographs.
"""

import random
import shutil
from importlib.metadata import version
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
"""A photograph is cut into so many upright stripes, which belong to A and to B in turn."""

_PAPER_SEPIA, _INK_SEPIA = (1.0, 0.93, 0.72), (0.20, 0.06, 0.0)
_PAPER_CYANOTYPE, _INK_CYANOTYPE = (0.90, 1.0, 1.0), (0.02, 0.08, 0.35)
"""Colors (red, green, blue in 0…1) of the brightest and of the darkest tone."""


def to_sepia(photograph: Image.Image) -> Image.Image:
    """A photograph as a brown print."""
    return _print(photograph, _PAPER_SEPIA, _INK_SEPIA)


def to_cyanotype(photograph: Image.Image) -> Image.Image:
    """A photograph as a blue print."""
    return _print(photograph, _PAPER_CYANOTYPE, _INK_CYANOTYPE)


def make_demo_set(root: Path, *, crops: int = 300, seed: int = 0) -> Path:
    """Make the data set, unless it is there: trainA and trainB unpaired, testA and testB pairs of one name.

    Args:
        root: Where to make it; the folder appears when it is whole.
        crops: Training images in each domain, 80×80; test images are 64×64.
        seed: Places of the crops.

    Returns:
        `root`.

    Raises:
        DataError: When scikit-image is not installed, or the folder cannot be written.
    """
    if root.is_dir():
        return root
    part = root.with_name(f".{root.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    draws = random.Random(derive_seed(seed, "demo crops"))
    stripes: dict[str, list[Image.Image]] = {"A": [], "B": []}
    for name in TRAINING_PHOTOGRAPHS:
        for place, stripe in enumerate(_cut_stripes(load_photograph(name))):
            stripes["AB"[place % 2]].append(stripe)
    for domain, transform in (("A", to_sepia), ("B", to_cyanotype)):
        for number in range(crops):
            stripe = stripes[domain][number % len(stripes[domain])]
            left, top = draws.randint(0, stripe.width - _CROP_SIDE), draws.randint(0, stripe.height - _CROP_SIDE)
            crop = stripe.crop((left, top, left + _CROP_SIDE, top + _CROP_SIDE))
            write_image(transform(crop), part / f"train{domain}" / f"{number:03d}.png")
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
    """One of the photographs that scikit-image ships, in RGB.

    Raises:
        DataError: When scikit-image is not installed, or does not ship it.
    """
    with requires_extra("demo", "the demonstration", DataError):
        import skimage
    # Straight from the package's folder: its loading functions may go to the network for files that it does not ship.
    found = sorted((Path(skimage.__file__).parent / "data").glob(f"{name}.*"))
    if not found:
        raise DataError(
            f"scikit-image {version('scikit-image')} does not ship the photograph '{name}'; install 0.25 or 0.26"
        )
    return Image.open(found[0]).convert("RGB")


def _cut_stripes(photograph: Image.Image) -> list[Image.Image]:
    edges = [round(place * photograph.width / _STRIPES) for place in range(_STRIPES + 1)]
    return [photograph.crop((edges[i], 0, edges[i + 1], photograph.height)) for i in range(_STRIPES)]


def _print(photograph: Image.Image, paper: tuple[float, ...], ink: tuple[float, ...]) -> Image.Image:
    luminance = np.asarray(photograph.convert("L"), dtype=np.float64)[..., None] / 255
    colors = luminance * np.array(paper) + (1 - luminance) * np.array(ink)
    return Image.fromarray(np.rint(colors * 255).astype(np.uint8))

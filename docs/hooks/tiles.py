"""Draw the image of the tutorial on large images during the build: one photograph, translated whole and in tiles."""

import io
import sys
from pathlib import Path

import torch
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2]))  # the page shows the code that the benchmark measures
from benchmarks.tiles import open_translator, translate_separately
from gantoolkit.data import from_tensor, to_tensor
from gantoolkit.demo.photographs import TRAINING_PHOTOGRAPHS, load_photograph, to_cyanotype
from gantoolkit.inference import Translator

SIDE, TILE, CROP = 320, 80, 192
GAP, STEPS = 8, 120

_images: list[bytes] = []
"""Reused by later builds of `mkdocs serve`."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the image to the site."""
    if not _images:
        _images.append(draw())
    files.append(File.generated(config, "images/tiles.png", content=_images[0]))
    return files


def draw() -> bytes:
    """The photograph and its translations: whole, in tiles, and in independent tiles."""
    photograph = _resize(load_photograph("rocket"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        translator = _train_on_cyanotypes()
    whole = translator(photograph)
    translator.memory.tile = TILE
    separate = translate_separately(translator, to_tensor(photograph)[None], TILE)
    images = [photograph, whole, translator(photograph), from_tensor(separate[0])]
    sheet = Image.new("RGB", (len(images) * (SIDE + GAP) - GAP, SIDE), "white")
    for index, image in enumerate(images):
        sheet.paste(image, (index * (SIDE + GAP), 0))
    stream = io.BytesIO()
    sheet.save(stream, "PNG")
    return stream.getvalue()


def _train_on_cyanotypes() -> Translator:
    """Train on pairs for a few seconds, enough to make tones and seams visible."""
    translator = open_translator(8, 2, torch.device("cpu"), upsampling="resize")
    network = translator.generator.network.train()
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    photographs = [_resize(load_photograph(name)) for name in TRAINING_PHOTOGRAPHS[:5]]
    real_A, real_B = (
        torch.stack([to_tensor(image) for image in images]) for images in (photographs, map(to_cyanotype, photographs))
    )
    for _ in range(STEPS):
        top, left = torch.randint(0, SIDE - CROP, (2,)).tolist()
        crop = (torch.randperm(len(photographs))[:2], ..., slice(top, top + CROP), slice(left, left + CROP))
        optimizer.zero_grad()
        (network(real_A[crop]) - real_B[crop]).abs().mean().backward()
        optimizer.step()
    network.eval()
    return translator


def _resize(image: Image.Image) -> Image.Image:
    return image.resize((SIDE, SIDE), Image.Resampling.BICUBIC)

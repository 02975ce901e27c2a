"""Draws the picture of the tutorial on large images while the pages are built: one photograph, whole and in tiles."""

import io
import sys
from pathlib import Path

import torch
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2]))  # what is measured is what is shown
from benchmarks.tiles import open_translator, translate_separately
from gantoolkit.data import from_tensor, to_tensor
from gantoolkit.demo.photographs import TRAINING_PHOTOGRAPHS, load_photograph, to_cyanotype
from gantoolkit.inference import Translator

SIDE, TILE, CROP = 320, 80, 192
GAP, STEPS = 8, 120

_drawn: list[bytes] = []
"""Kept from one build to the next of `mkdocs serve`."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the picture to the files of the site."""
    if not _drawn:
        _drawn.append(draw())
    files.append(File.generated(config, "images/tiles.png", content=_drawn[0]))
    return files


def draw() -> bytes:
    """The photograph, its translation, that in tiles, and that in tiles which are images of their own."""
    photograph = _sized(load_photograph("rocket"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        translator = _learn_cyanotypes()
    whole = translator(photograph)
    translator.tile = TILE
    apart = translate_separately(translator, to_tensor(photograph)[None], TILE)
    pictures = [photograph, whole, translator(photograph), from_tensor(apart[0])]
    sheet = Image.new("RGB", (len(pictures) * (SIDE + GAP) - GAP, SIDE), "white")
    for place, picture in enumerate(pictures):
        sheet.paste(picture, (place * (SIDE + GAP), 0))
    stream = io.BytesIO()
    sheet.save(stream, "PNG")
    return stream.getvalue()


def _learn_cyanotypes() -> Translator:
    """Seconds of learning from pairs: enough for a picture in which tones and seams can be told apart."""
    translator = open_translator(8, 2, torch.device("cpu"), upsampling="resize")
    network = translator.generator.network.train()
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    photographs = [_sized(load_photograph(name)) for name in TRAINING_PHOTOGRAPHS[:5]]
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


def _sized(image: Image.Image) -> Image.Image:
    return image.resize((SIDE, SIDE), Image.Resampling.BICUBIC)

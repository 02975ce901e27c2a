"""Pack a data set: a small copy of its pairs, resized once, with label maps in exact colors."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from gantoolkit.blocks.metrics.palette import Palette
from gantoolkit.data.encoding import PICTURE
from gantoolkit.data.evaluation_images import evenly_spaced
from gantoolkit.data.file_notes import FileNotes
from gantoolkit.data.folders import Dataset, open_dataset, open_test_images
from gantoolkit.data.images import ImageFile, to_tensor
from gantoolkit.data.pairs import WrittenPairs
from gantoolkit.data.pixels import read_decoded_image
from gantoolkit.data.writing import write_image
from gantoolkit.errors import DataError

__all__ = ["pack_dataset"]


def pack_dataset(
    root: Path,
    out: Path,
    *,
    side: int,
    test_side: int | None = None,
    train: int | None = None,
    test: int | None = None,
    palette: Palette | None = None,
    labels: str = "A",
    progress: Callable[[int, int], None] = lambda packed, total: None,
) -> WrittenPairs:
    """Write a small copy of a paired data set: JPEG photographs, and label maps as PNG files of indexed color.

    Args:
        root: Folder of the data set, whose images are pairs.
        out: Folder of the copy: `trainA` and `trainB`, and `testA` and `testB` if the data set has test images.
        side: Side in pixels of the training images; with `data.load_size` set to it, they are not resized again.
        test_side: The same for test images and `data.crop_size`; `side` by default.
        train: Take at most this many training pairs, evenly spaced.
        test: The same for test pairs.
        palette: The colors of the label maps. Each pixel gets the nearest of them before the map is resized, which chooses
            pixels and mixes no colors. Without a palette, both domains are photographs.
        labels: The domain that holds the label maps.
        progress: Called with the number of packed images and of all images.

    Raises:
        DataError: When the images are not pairs, one of them cannot be read, or `out` is not empty.
    """
    if out.exists() and any(out.iterdir()):
        raise DataError(f"{out}: is not empty; choose another --out")
    splits = {"train": (open_dataset(root, pairing="paired"), side, train)}
    if (test_images := open_test_images(root, "paired")) is not None:
        splits["test"] = (test_images, test_side or side, test)
    pairs = {name: _choose(dataset, count) for name, (dataset, _, count) in splits.items()}
    total, packed = 2 * sum(map(len, pairs.values())), 0
    file_notes = FileNotes()
    for split, (_, size, _) in splits.items():
        for number, pair in enumerate(pairs[split]):
            for domain, file in zip("AB", pair, strict=True):
                target = out / f"{split}{domain}" / f"{number:05d}"
                decoded = read_decoded_image(file, PICTURE)
                file_notes.add(file, decoded.notes)
                image = Image.fromarray(decoded.pixels)
                if palette is not None and domain == labels:
                    write_image(_index(image, palette).resize((size, size), Image.Resampling.NEAREST), f"{target}.png")
                else:
                    write_image(image.resize((size, size), Image.Resampling.BICUBIC), f"{target}.jpg")
                packed += 1
                progress(packed, total)
    datasets = [dataset for dataset, _, _ in splits.values()]
    notes = [note for dataset in datasets for note in dataset.notes]
    passed_over = [note for dataset in datasets for note in dataset.passed_over]
    return WrittenPairs(
        {split: len(chosen) for split, chosen in pairs.items()},
        (*notes, *file_notes.sentences()),
        (*passed_over, *file_notes.sentences(passed_over_only=True)),
    )


def _choose(dataset: Dataset, count: int | None) -> Sequence[tuple[ImageFile, ImageFile]]:
    pairs = list(zip(dataset.files("A"), dataset.files("B"), strict=True))
    return pairs if count is None else evenly_spaced(pairs, count)


def _index(image: Image.Image, palette: Palette) -> Image.Image:
    """A label map as an image of indexed color, each pixel in the nearest color of the palette."""
    # The ignored colors as further classes: they stay what they are.
    colors = palette.colors + palette.ignored
    names = tuple(map(str, range(len(colors))))
    indices = Palette(palette.name, names, colors).decode(to_tensor(image)[None], ignore=False)[0]
    indexed = Image.fromarray(indices.numpy().astype(np.uint8))
    indexed.putpalette([level for color in colors for level in color])
    return indexed

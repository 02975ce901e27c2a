"""Join two folders into aligned pairs: one image per pair, with A on the left and B on the right."""

import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from gantoolkit.data.encoding import PICTURE
from gantoolkit.data.file_notes import FileNotes
from gantoolkit.data.listing import open_listing
from gantoolkit.data.matching import match_files, pair_name
from gantoolkit.data.pixels import read_decoded_image, resize_pixels
from gantoolkit.data.writing import write_image
from gantoolkit.errors import DataError
from gantoolkit.recipes.settings import Resample
from gantoolkit.runtime.seeds import derive_seed

__all__ = ["WrittenPairs", "join_pairs"]


@dataclass(frozen=True)
class WrittenPairs:
    """The pairs of a data set that was written.

    Args:
        counts: The number of pairs in each folder or split.
        notes: Sentences about how the files were read, and about what the folders hold and was not used.
        passed_over: The notes among them about what was not used.
    """

    counts: dict[str, int]
    notes: tuple[str, ...] = ()
    passed_over: tuple[str, ...] = ()


def join_pairs(
    folder_A: Path,
    folder_B: Path,
    out: Path,
    *,
    test_share: float = 0.0,
    resize: bool = False,
    resample: Resample = "bicubic",
    seed: int = 0,
) -> WrittenPairs:
    """Write one image per pair to `out/train` and `out/test`. The files of a pair have the same name; suffixes may differ.

    Args:
        test_share: The fraction of the pairs, 0 to 1, that goes to `test`.
        resize: Resize each B to the size of its A. Otherwise, different sizes are an error.
        resample: How to resize; `nearest` for label maps.
        seed: Determines which pairs go to `test`.

    Raises:
        DataError: When a file has no partner or cannot be read, sizes differ, or `out` is not empty.
    """
    if out.exists() and any(out.iterdir()):
        raise DataError(f"{out}: is not empty; choose another --out")
    if folder_A.exists() and folder_B.exists() and folder_A.samefile(folder_B):
        raise DataError(f"{folder_A}: is used as A and as B; pairs need two different folders")
    listings = (open_listing(folder_A), open_listing(folder_B))
    pairs = _name_pairs(match_files(*listings, (str(folder_A), str(folder_B))), folder_A)
    order = sorted(pairs)
    random.Random(derive_seed(seed, "test pairs")).shuffle(order)
    test_names = set(order[: round(test_share * len(order))])
    if len(test_names) == len(order):
        raise DataError(f"--test-share {test_share}: leaves no pair for training; use a smaller value")
    file_notes = FileNotes()
    for name in order:
        A, B = (_read(path, file_notes) for path in pairs[name])
        if A.shape != B.shape:
            if not resize:
                raise DataError(
                    f"{name}: is {A.shape[1]}×{A.shape[0]} in A and {B.shape[1]}×{B.shape[0]} in B; --resize resizes B to the "
                    "size of A"
                )
            B = resize_pixels(B, (A.shape[1], A.shape[0]), PICTURE, resample)
        both = Image.fromarray(np.concatenate([A, B], axis=1))
        write_image(both, out / ("test" if name in test_names else "train") / f"{name}.png")
    counts = {"train": len(order) - len(test_names), **({"test": len(test_names)} if test_names else {})}
    unread = [note for listing in listings for note in listing.notes(str(listing.folder))]
    return WrittenPairs(
        counts, (*unread, *file_notes.sentences()), (*unread, *file_notes.sentences(passed_over_only=True))
    )


def _name_pairs(pairs: list[tuple[Path, Path]], folder: Path) -> dict[str, tuple[Path, Path]]:
    """The name of each pair in a folder without subfolders, as images side by side require."""
    relative = {pair: pair[0].relative_to(folder) for pair in pairs}
    counts = Counter(map(pair_name, relative.values()))
    named: dict[str, tuple[Path, Path]] = {}
    for pair, path in relative.items():
        # The suffix distinguishes a.jpg from a.png if both have partners.
        unique = pair_name(path) if counts[pair_name(path)] == 1 else path.as_posix()
        name = unique.replace("/", "_")
        if name in named:
            raise DataError(f"{pair[0]} and {named[name][0]} would both be written to {name}.png; rename one of them")
        named[name] = pair
    return named


def _read(path: Path, notes: FileNotes) -> np.ndarray:
    image = read_decoded_image(path, PICTURE)
    notes.add(path, image.notes)
    return image.pixels

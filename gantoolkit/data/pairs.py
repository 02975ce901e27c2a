"""Aligned pairs from two folders: each pair becomes one image, A on the left and B on the right."""

import random
from pathlib import Path

from PIL import Image

from gantoolkit.data.folders import find_images
from gantoolkit.data.images import read_image, write_image
from gantoolkit.errors import DataError
from gantoolkit.runtime.seeds import derive_seed

__all__ = ["join_pairs"]


def join_pairs(
    folder_A: Path, folder_B: Path, out: Path, *, test_share: float = 0.0, resize: bool = False, seed: int = 0
) -> dict[str, int]:
    """Write `out/train` and, if asked, `out/test`, with an image for each name that both folders have; endings may differ.

    Args:
        test_share: Share of the pairs, 0 to 1, that goes to `test`, drawn by `seed`.
        resize: Bring each B to the size of its A, where they differ; else that is an error.

    Returns:
        Pairs by folder.

    Raises:
        DataError: When a file has no partner or cannot be read, two files share a name, or sizes differ; nothing that was
            there before is overwritten.
    """
    if out.exists() and any(out.iterdir()):
        raise DataError(f"{out}: is not empty; choose another --out")
    if folder_A.exists() and folder_B.exists() and folder_A.samefile(folder_B):
        raise DataError(f"{folder_A}: is A and B at once; a pair is an image of each of two folders")
    names = {folder: _by_name(folder) for folder in (folder_A, folder_B)}
    alone = sorted(names[folder_A].keys() ^ names[folder_B].keys())
    if alone:
        missing = folder_B if alone[0] in names[folder_A] else folder_A
        raise DataError(f"{missing}: {len(alone)} files have no partner of their name, '{alone[0]}' first")
    order = sorted(names[folder_A])
    random.Random(derive_seed(seed, "test pairs")).shuffle(order)
    held_out = set(order[: round(test_share * len(order))])
    if len(held_out) == len(order):
        raise DataError(f"--test-share {test_share}: leaves no pair to train on; take less")
    for name in order:
        A, B = read_image(names[folder_A][name]), read_image(names[folder_B][name])
        if A.size != B.size:
            if not resize:
                raise DataError(
                    f"{name}: is {A.width}×{A.height} in A and {B.width}×{B.height} in B; --resize brings B to the size of A"
                )
            B = B.resize(A.size, Image.Resampling.BICUBIC)
        both = Image.new("RGB", (2 * A.width, A.height))
        both.paste(A, (0, 0))
        both.paste(B, (A.width, 0))
        write_image(both, out / ("test" if name in held_out else "train") / f"{name}.png")
    return {"train": len(order) - len(held_out), **({"test": len(held_out)} if held_out else {})}


def _by_name(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in find_images(folder):
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in found:
            raise DataError(f"{folder}: {found[name].name} and {path.name} have one name; a pair is found by its name")
        found[name] = path
    return found

"""Join two folders into aligned pairs: one image per pair, with A on the left and B on the right."""

import random
from pathlib import Path

from PIL import Image

from gantoolkit.data.folders import find_images
from gantoolkit.data.images import read_image
from gantoolkit.data.writing import write_image
from gantoolkit.errors import DataError
from gantoolkit.runtime.seeds import derive_seed

__all__ = ["join_pairs"]


def join_pairs(
    folder_A: Path, folder_B: Path, out: Path, *, test_share: float = 0.0, resize: bool = False, seed: int = 0
) -> dict[str, int]:
    """Write one image per pair to `out/train` and `out/test`. The files of a pair have the same name; suffixes may differ.

    Args:
        test_share: The fraction of the pairs, 0 to 1, that goes to `test`.
        resize: Resize each B to the size of its A. Otherwise, different sizes are an error.
        seed: Determines which pairs go to `test`.

    Returns:
        The number of pairs in each folder.

    Raises:
        DataError: When a file has no partner or cannot be read, two files share a name, sizes differ, or `out` is not empty.
    """
    if out.exists() and any(out.iterdir()):
        raise DataError(f"{out}: is not empty; choose another --out")
    if folder_A.exists() and folder_B.exists() and folder_A.samefile(folder_B):
        raise DataError(f"{folder_A}: is used as A and as B; pairs need two different folders")
    names = {folder: _by_name(folder) for folder in (folder_A, folder_B)}
    unpaired = sorted(names[folder_A].keys() ^ names[folder_B].keys())
    if unpaired:
        folder = folder_B if unpaired[0] in names[folder_A] else folder_A
        raise DataError(f"{folder}: {len(unpaired)} files have no partner of the same name, '{unpaired[0]}' first")
    order = sorted(names[folder_A])
    random.Random(derive_seed(seed, "test pairs")).shuffle(order)
    test_names = set(order[: round(test_share * len(order))])
    if len(test_names) == len(order):
        raise DataError(f"--test-share {test_share}: leaves no pair for training; use a smaller value")
    for name in order:
        A, B = read_image(names[folder_A][name]), read_image(names[folder_B][name])
        if A.size != B.size:
            if not resize:
                raise DataError(
                    f"{name}: is {A.width}×{A.height} in A and {B.width}×{B.height} in B; --resize resizes B to the size of A"
                )
            B = B.resize(A.size, Image.Resampling.BICUBIC)
        both = Image.new("RGB", (2 * A.width, A.height))
        both.paste(A, (0, 0))
        both.paste(B, (A.width, 0))
        write_image(both, out / ("test" if name in test_names else "train") / f"{name}.png")
    return {"train": len(order) - len(test_names), **({"test": len(test_names)} if test_names else {})}


def _by_name(folder: Path) -> dict[str, Path]:
    paths: dict[str, Path] = {}
    for path in find_images(folder):
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in paths:
            raise DataError(
                f"{folder}: {paths[name].name} and {path.name} have the same name, which has to identify a pair"
            )
        paths[name] = path
    return paths

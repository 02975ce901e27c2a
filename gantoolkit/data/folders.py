"""Data sets as folders: trainA and trainB, testA and testB; or train and test, with A and B side by side in each image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gantoolkit.data.images import ImageFile
from gantoolkit.errors import DataError, closest_match
from gantoolkit.plugins import Pairing

__all__ = ["SUFFIXES", "Dataset", "find_images", "open_dataset", "open_test_images"]

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp", ".npy")
"""File names that are taken for images; the content decides when they are read."""


@dataclass(frozen=True)
class Dataset:
    """The images of both domains, and how they are paired.

    Args:
        images: The image files of each domain, sorted by path. In a paired data set, files of one index form a pair.
        pairing: How images of A and B are combined.
    """

    images: Mapping[str, tuple[ImageFile, ...]]
    pairing: Pairing = "unpaired"

    def files(self, domain: str) -> tuple[ImageFile, ...]:
        """The image files of a domain."""
        return self.images[domain]


def find_images(folder: str | Path, suffixes: Sequence[str] = SUFFIXES) -> list[Path]:
    """Every image file below a folder, sorted by path; names that begin with a dot are passed over.

    Args:
        suffixes: Endings of the names that are taken.

    Raises:
        DataError: When there is no such folder, it cannot be listed, or it holds no image.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    try:
        files = [path for path in folder.rglob("*") if path.suffix.lower() in suffixes and path.is_file()]
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed ({error.strerror or error})") from error
    images = sorted(path for path in files if not any(part.startswith(".") for part in path.relative_to(folder).parts))
    if not images:
        raise DataError(f"{folder}: holds no image; known endings are {', '.join(suffixes)}")
    return images


def open_dataset(root: str | Path, *, split: str = "train", pairing: Pairing = "unpaired") -> Dataset:
    """Find the images of a data set laid out as `<root>/<split>A` and `<root>/<split>B`, or as `<root>/<split>`.

    For a paired set the two folders hold files of the same names; the endings may differ. In the one folder each image shows
    A in its left half and B in its right one, as the data sets of pix2pix do; these can be taken as pairs or not.

    Raises:
        DataError: When a folder is missing or empty, or a file has no partner.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; a data set is a folder with {split}A and {split}B in it")
    folders = {domain: root / f"{split}{domain}" for domain in "AB"}
    if _is_side_by_side(root, split):
        files = find_images(root / split)
        return Dataset(
            {
                "A": tuple(ImageFile(path, "left") for path in files),
                "B": tuple(ImageFile(path, "right") for path in files),
            },
            pairing,
        )
    for domain, folder in folders.items():
        if not folder.is_dir():
            there = sorted(path.name for path in root.iterdir() if path.is_dir())
            meant = closest_match(folder.name, there)
            seen = f"did you mean to rename '{meant}'?" if meant else f"there is {', '.join(there) or 'no folder'}"
            raise DataError(f"{root}: domain {domain} is missing: no folder '{folder.name}'; {seen}")
    found = {domain: find_images(folder) for domain, folder in folders.items()}
    if pairing != "paired":
        return Dataset({domain: tuple(map(ImageFile, paths)) for domain, paths in found.items()}, pairing)
    by_name = {
        domain: {path.relative_to(folders[domain]).with_suffix(""): path for path in paths}
        for domain, paths in found.items()
    }
    alone = sorted(by_name["A"].keys() ^ by_name["B"].keys())
    if alone:
        raise DataError(
            f"{root}: {len(alone)} files have no partner, '{alone[0]}' first; a pair is one name in {split}A and {split}B"
        )
    pairs = {domain: tuple(ImageFile(by_name[domain][name]) for name in by_name["A"]) for domain in "AB"}
    return Dataset(pairs, "paired")


def open_test_images(root: str | Path, pairing: Pairing = "unpaired") -> Dataset | None:
    """The test images of a data set, laid out as its training images are; None where there are none for both domains.

    Raises:
        DataError: As `open_dataset`.
    """
    root = Path(root)
    if _is_side_by_side(root, "train"):
        there = (root / "test").is_dir()
    else:
        there = all((root / f"test{domain}").is_dir() for domain in "AB")
    return open_dataset(root, split="test", pairing=pairing) if there else None


def _is_side_by_side(root: Path, split: str) -> bool:
    # Where a data set has folders for A and for B, another one means something else.
    return (root / split).is_dir() and not any((root / f"train{domain}").is_dir() for domain in "AB")

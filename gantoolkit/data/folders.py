"""Data sets as folders: trainA, trainB, testA and testB; or train and test, where each image shows A and B side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gantoolkit.data.images import ImageFile
from gantoolkit.errors import DataError, closest_match
from gantoolkit.plugins import Pairing

__all__ = ["SUFFIXES", "Dataset", "find_images", "open_dataset", "open_test_images"]

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp", ".npy")
"""Suffixes of image files. When a file is read, its content determines the format."""


@dataclass(frozen=True)
class Dataset:
    """The images of both domains, and how they are paired.

    Args:
        images: The image files of each domain, sorted by path. In a paired data set, files with the same index form a pair.
        pairing: How images of A and B are combined.
    """

    images: Mapping[str, tuple[ImageFile, ...]]
    pairing: Pairing = "unpaired"

    def files(self, domain: str) -> tuple[ImageFile, ...]:
        """The image files of a domain."""
        return self.images[domain]


def find_images(folder: str | Path, suffixes: Sequence[str] = SUFFIXES) -> list[Path]:
    """Find every image file below a folder, sorted by path. Names that begin with a dot are ignored.

    Args:
        suffixes: The suffixes of image files.

    Raises:
        DataError: When the folder does not exist, cannot be listed, or contains no image.
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
        raise DataError(f"{folder}: contains no image; known suffixes are {', '.join(suffixes)}")
    return images


def open_dataset(root: str | Path, *, split: str = "train", pairing: Pairing = "unpaired") -> Dataset:
    """Open a split of a data set: the folders `<root>/<split>A` and `<root>/<split>B`, or the folder `<root>/<split>`.

    In a paired data set, the files of both folders have the same names; suffixes may differ. In a single folder, each image
    shows A in its left half and B in its right half, as in the pix2pix data sets. Any pairing can be used with it.

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
            names = sorted(path.name for path in root.iterdir() if path.is_dir())
            match = closest_match(folder.name, names)
            hint = f"did you mean to rename '{match}'?" if match else f"it contains {', '.join(names) or 'no folder'}"
            raise DataError(f"{root}: domain {domain} is missing: no folder '{folder.name}'; {hint}")
    images = {domain: find_images(folder) for domain, folder in folders.items()}
    if pairing != "paired":
        return Dataset({domain: tuple(map(ImageFile, paths)) for domain, paths in images.items()}, pairing)
    by_name = {
        domain: {path.relative_to(folders[domain]).with_suffix(""): path for path in paths}
        for domain, paths in images.items()
    }
    unpaired = sorted(by_name["A"].keys() ^ by_name["B"].keys())
    if unpaired:
        raise DataError(
            f"{root}: {len(unpaired)} files have no partner, '{unpaired[0]}' first; the files of a pair have the same name in "
            f"{split}A and {split}B"
        )
    pairs = {domain: tuple(ImageFile(by_name[domain][name]) for name in by_name["A"]) for domain in "AB"}
    return Dataset(pairs, "paired")


def open_test_images(root: str | Path, pairing: Pairing = "unpaired") -> Dataset | None:
    """Open the test images of a data set, in the same layout as its training images; None unless both domains have some.

    Raises:
        DataError: As `open_dataset`.
    """
    root = Path(root)
    if _is_side_by_side(root, "train"):
        exists = (root / "test").is_dir()
    else:
        exists = all((root / f"test{domain}").is_dir() for domain in "AB")
    return open_dataset(root, split="test", pairing=pairing) if exists else None


def _is_side_by_side(root: Path, split: str) -> bool:
    # Beside trainA or trainB, a folder named `train` has another meaning.
    return (root / split).is_dir() and not any((root / f"train{domain}").is_dir() for domain in "AB")

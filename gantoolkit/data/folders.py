"""Data sets as folders: the images of both domains in one of the layouts of `gantoolkit.data.layouts`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gantoolkit.data.images import ImageFile, read_size
from gantoolkit.data.layouts import describe_beside, describe_unused_tests, find_split, has_split
from gantoolkit.data.listing import list_images, open_listing
from gantoolkit.data.matching import match_files
from gantoolkit.errors import DataError, count_of
from gantoolkit.files.paths import user_path
from gantoolkit.plugins import Pairing

__all__ = ["Dataset", "list_data_folders", "open_dataset", "open_test_images"]


@dataclass(frozen=True)
class Dataset:
    """The images of both domains, and how they are paired.

    Args:
        images: The image files of each domain, sorted by path. In a paired data set, files with the same index form a pair.
        pairing: How images of A and B are combined.
        notes: Sentences about how the folders are read, and about what they hold and is not used.
        passed_over: The notes among them about what is not used.
    """

    images: Mapping[str, tuple[ImageFile, ...]]
    pairing: Pairing = "unpaired"
    notes: tuple[str, ...] = ()
    passed_over: tuple[str, ...] = ()

    def files(self, domain: str) -> tuple[ImageFile, ...]:
        """The image files of a domain."""
        return self.images[domain]


def open_dataset(root: str | Path, *, split: str = "train", pairing: Pairing = "unpaired") -> Dataset:
    """Open a split of a data set: `<root>/<split>A` and `<root>/<split>B`, or `<root>/<split>/A` and `<root>/<split>/B`, or
    the folder `<root>/<split>`, where each image shows A in its left half and B in its right half.

    In a paired data set, the files of both folders have the same names; suffixes may differ. Images side by side can be used
    with any pairing.

    Raises:
        DataError: When a folder is missing or empty, a folder of images side by side has images in subfolders, or a file of a
            paired data set has no partner.
    """
    root = user_path(root)
    location = find_split(root, split)
    notes = (*describe_unused_tests(root), *describe_beside(root)) if split == "train" else ()
    if location.is_side_by_side:
        return _open_side_by_side(location.folders["A"], split, pairing, notes)
    listings = {domain: open_listing(folder) for domain, folder in location.folders.items()}
    names = {domain: folder.relative_to(root).as_posix() for domain, folder in location.folders.items()}
    images = {domain: listing.images for domain, listing in listings.items()}
    if pairing == "paired":
        pairs = match_files(listings["A"], listings["B"], (names["A"], names["B"]), where=f"{root}: ")
        images = {"A": tuple(A for A, _ in pairs), "B": tuple(B for _, B in pairs)}
    passed_over = location.notes
    for domain, listing in listings.items():
        passed_over += listing.notes(names[domain])
    files = {domain: tuple(map(ImageFile, paths)) for domain, paths in images.items()}
    return Dataset(files, pairing, (*passed_over, *notes), passed_over)


def open_test_images(root: str | Path, pairing: Pairing = "unpaired") -> Dataset | None:
    """Open the test images of a data set; None unless both domains have some.

    Raises:
        DataError: As `open_dataset`.
    """
    root = user_path(root)
    return open_dataset(root, split="test", pairing=pairing) if has_split(root, "test") else None


def list_data_folders(root: Path) -> list[Path]:
    """The folders of a data set that hold its images for training and for tests, and all folders that are linked in them."""
    names = [f"{split}{domain}" for split in ("train", "test") for domain in ("", "A", "B")]
    folders = [root / name for name in names]
    return [*folders, *(link for folder in folders if folder.is_dir() for link in list_images(folder).links)]


def _open_side_by_side(folder: Path, name: str, pairing: Pairing, notes: tuple[str, ...]) -> Dataset:
    listing = open_listing(folder)
    if inner := [path for path in listing.images if path.parent != folder]:
        subfolders = dict.fromkeys(path.relative_to(folder).parts[0] for path in inner)
        raise DataError(
            f"{folder}: images that show A and B side by side are directly in {name}, and {count_of(len(inner), 'image')} "
            f"{'is' if len(inner) == 1 else 'are'} in its folders, such as {next(iter(subfolders))}; move them, or use "
            f"{name}/A and {name}/B for the images of both domains"
        )
    passed_over = listing.notes(name)
    files = listing.images
    images = {
        "A": tuple(ImageFile(path, "left") for path in files),
        "B": tuple(ImageFile(path, "right") for path in files),
    }
    return Dataset(images, pairing, (_describe_halves(files, name), *passed_over, *notes), passed_over)


def _describe_halves(files: tuple[Path, ...], name: str) -> str:
    """How pictures are cut, with the size of the first; and what is right if it is too narrow for two images."""
    verb = "is" if len(files) == 1 else "are"
    effect = f"{count_of(len(files), 'picture')} {verb} cut in half"
    halves = "the left half is A, the right half B"
    try:
        width, height = read_size(files[0])
    except DataError:
        return f"{name}: {effect}: {halves}"
    advice = f"; single images belong in {name}A and {name}B" if width <= height else ""
    return f"{name}: {effect} ({files[0].name} is {width}×{height}): {halves}{advice}"

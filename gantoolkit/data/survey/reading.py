"""Read every image of a data set once, and collect what its problems are found in."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from gantoolkit.data.encoding import PICTURE, Encoding, encoding_of
from gantoolkit.data.file_notes import FileNotes
from gantoolkit.data.folders import Dataset, open_dataset, open_test_images
from gantoolkit.data.images import ImageFile
from gantoolkit.data.layouts import describe_beside, describe_unused_tests
from gantoolkit.data.notes import FEW_LEVELS
from gantoolkit.data.pixels import DecodedImage, read_decoded_image
from gantoolkit.data.survey.colors import ColorCount
from gantoolkit.errors import DataError
from gantoolkit.plugins import Pairing
from gantoolkit.recipes.settings import DataSettings

__all__ = ["DomainSurvey", "OutsideValues", "Survey", "survey"]

_MAX_FLAT_STD = 0.008  # as a fraction of the range: 2 of 255 levels
_MIN_SHARE_OF_NODATA = 0.001
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class OutsideValues:
    """The values of a file that leave the range of its domain.

    Args:
        low: The smallest value of the file.
        high: The largest value of the file.
        has_nan: Whether some of its values are not numbers.
        repeated: A value outside the range that many pixels have, such as -9999; None if there is none.
        others_outside: Whether other values, which are neither NaN nor that one, leave the range.
    """

    low: float
    high: float
    has_nan: bool
    repeated: float | None
    others_outside: bool


@dataclass
class DomainSurvey:
    """The images of one domain in one split.

    Args:
        files: All image files.
        sizes: Width and height of each readable image.
        bad: Unreadable files, with the reason.
        outside: The unreadable files that would be readable if the domain had a wider range.
        flat: Files with a single color or value.
        gray: The number of images with several channels that are gray.
        checksums: Files by the checksum of their pixels.
        mean: The mean of each channel over the images, in file values: for pictures red, green, blue from 0 to 255.
        std: The standard deviation of each channel within an image, averaged over the images.
        encoding: How the images are read.
        notes: Notes about how files were read.
        colors: Whether the images are label maps.
    """

    files: tuple[ImageFile, ...]
    sizes: dict[ImageFile, tuple[int, int]] = field(default_factory=dict)
    bad: dict[str, str] = field(default_factory=dict)
    outside: dict[str, OutsideValues] = field(default_factory=dict)
    flat: list[str] = field(default_factory=list)
    gray: int = 0
    checksums: dict[str, list[str]] = field(default_factory=dict)
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    encoding: Encoding = PICTURE
    notes: FileNotes = field(default_factory=FileNotes)
    colors: ColorCount = field(default_factory=ColorCount)


@dataclass(frozen=True)
class Survey:
    """The survey of a data set.

    Args:
        domains: The survey of each domain and split, named `trainA`, `testB`.
        pairing_problem: Why it cannot be used as pairs; empty if it can.
        pairs: The pairs of each split, if it can.
        passed_over: Sentences about what its folders hold and is not used.
        notes: Sentences about what lies beside its folders.
        settings: How the images are read and resized.
        pairing: The pairing of the recipe that would be trained; None if it is not known.
    """

    domains: dict[str, DomainSurvey]
    pairing_problem: str = ""
    pairs: dict[str, tuple[tuple[ImageFile, ImageFile], ...]] = field(default_factory=dict)
    passed_over: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    settings: DataSettings = field(default_factory=DataSettings)
    pairing: Pairing | None = None


def survey(
    root: Path,
    settings: DataSettings | None = None,
    *,
    pairing: Pairing | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Survey:
    """Read every image of a data set once.

    Args:
        settings: Define the encoding of the files; RGB with 8 bits by default.
        pairing: The pairing of the recipe that would be trained.
        progress: Called with the number of files read and the number of all files.

    Raises:
        DataError: When `root` is not a data set.
    """
    settings = settings or DataSettings()
    splits = _open_splits(root, "unpaired")
    folders = {f"{split}{domain}": files for split, data in splits.items() for domain, files in data.images.items()}
    total, done = sum(map(len, folders.values())), 0
    domains: dict[str, DomainSurvey] = {}
    for name, files in folders.items():
        domains[name] = domain = DomainSurvey(files, encoding=encoding_of(settings, name[-1]))
        moments: list[np.ndarray] = []
        for file in files:
            _inspect(file, domain, moments)
            done += 1
            progress(done, total)
        if moments:
            mean = np.mean(moments, axis=0)
            domain.mean, domain.std = tuple(mean[0].tolist()), tuple(mean[1].tolist())
    pairs, problem = _find_pairs(root)
    passed_over = [note for data in splits.values() for note in data.passed_over]
    passed_over += describe_unused_tests(root)
    return Survey(domains, problem, pairs, tuple(passed_over), describe_beside(root), settings, pairing)


def _open_splits(root: Path, pairing: Pairing) -> dict[str, Dataset]:
    train, test = open_dataset(root, pairing=pairing), open_test_images(root, pairing)
    return {"train": train} if test is None else {"train": train, "test": test}


def _find_pairs(root: Path) -> tuple[dict[str, tuple[tuple[ImageFile, ImageFile], ...]], str]:
    """The pairs of each split, or the reason why there are none."""
    try:
        splits = _open_splits(root, "paired")
    except DataError as error:
        return {}, str(error).removeprefix(f"{root}: ")
    return {split: tuple(zip(data.files("A"), data.files("B"), strict=True)) for split, data in splits.items()}, ""


def _inspect(file: ImageFile, domain: DomainSurvey, moments: list[np.ndarray]) -> None:
    encoding = domain.encoding
    try:
        image = read_decoded_image(file, encoding)
    except DataError as error:
        path = str(file.path)
        domain.bad[path] = str(error).removeprefix(f"{path}: ")
        if values := _find_outside_values(file, encoding):
            domain.outside[path] = values
        return
    pixels = image.pixels
    domain.notes.add(file, image.notes)
    domain.sizes[file] = size = (pixels.shape[1], pixels.shape[0])
    digest = hashlib.sha256(repr(size).encode() + pixels.tobytes()).hexdigest()
    domain.checksums.setdefault(digest, []).append(str(file))
    flattened = pixels.reshape(-1, encoding.channels).astype(np.float32)
    moment = np.stack([flattened.mean(axis=0, dtype=np.float64), flattened.std(axis=0, dtype=np.float64)])
    moments.append(moment)
    if moment[1].max() <= (_MAX_FLAT_STD * encoding.high if encoding.bits else 0):
        domain.flat.append(str(file))
    if encoding.channels > 1 and (pixels.max(axis=2) == pixels.min(axis=2)).all():
        domain.gray += 1
    if FEW_LEVELS not in image.notes:  # the rounded levels of a photograph may look like those of a label map
        domain.colors.add(file, pixels)


def _find_outside_values(file: ImageFile, encoding: Encoding) -> OutsideValues | None:
    """The values of an unreadable file, if its only problem is that they leave the range."""
    if encoding.bits:
        return None
    widest = replace(encoding, range=(-_LARGEST, _LARGEST), clip=False)
    for nodata in (encoding.nodata, "nan"):
        try:
            image = read_decoded_image(file, replace(widest, nodata=nodata))
        except DataError:
            continue
        return _describe_values(image, encoding, has_nan=nodata == "nan" and nodata != encoding.nodata)
    return None


def _describe_values(image: DecodedImage, encoding: Encoding, *, has_nan: bool) -> OutsideValues | None:
    values = image.pixels if image.nodata is None else image.pixels[~image.nodata]
    if not values.size:
        return None
    ends = float(values.min()), float(values.max())
    outside = [end for end in ends if not encoding.low <= end <= encoding.high]
    repeated = next((end for end in outside if (values == end).mean() >= _MIN_SHARE_OF_NODATA), None)
    others = values if repeated is None else values[values != repeated]
    others_outside = bool(((others < encoding.low) | (others > encoding.high)).any())
    return OutsideValues(*ends, has_nan, repeated, others_outside)

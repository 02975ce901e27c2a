"""Survey of a data set: statistics of its images, and problems such as duplicates and unreadable files."""

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from gantoolkit.data.encoding import PICTURE, Encoding, encoding_of
from gantoolkit.data.evaluation_images import evenly_spaced
from gantoolkit.data.folders import open_dataset, open_test_images
from gantoolkit.data.images import ImageFile, render_tensor
from gantoolkit.data.pixels import read_pixels
from gantoolkit.errors import DataError
from gantoolkit.recipes.settings import DataSettings

__all__ = ["DomainSurvey", "Problem", "Survey", "describe_sizes", "draw_contact_sheet", "find_problems", "survey"]

_MAX_FLAT_STD = 0.008  # as a fraction of the range: 2 of 255 levels
_MAX_ASPECT_RATIO = 1.5
_MIN_SIDE = 32
_FONT_SIZE = 12
_HEADING = 20


@dataclass
class DomainSurvey:
    """The images of one domain in one split.

    Args:
        files: All image files.
        sizes: Width and height of each readable image.
        bad: Unreadable files, with the reason.
        flat: Files with a single color or value.
        gray: The number of images with several channels that are gray.
        checksums: Files by the checksum of their pixels.
        mean: The mean of each channel over the images, in file values: for pictures red, green, blue from 0 to 255.
        std: The standard deviation of each channel within an image, averaged over the images.
        encoding: How the images are read.
    """

    files: tuple[ImageFile, ...]
    sizes: list[tuple[int, int]] = field(default_factory=list)
    bad: dict[str, str] = field(default_factory=dict)
    flat: list[str] = field(default_factory=list)
    gray: int = 0
    checksums: dict[str, list[str]] = field(default_factory=dict)
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    encoding: Encoding = PICTURE


@dataclass(frozen=True)
class Survey:
    """The survey of a data set: its domains by folder name (`trainA`, `testB`), and whether it can be used as pairs.

    Args:
        domains: The survey of each domain and split.
        pairing_problem: Why it cannot be used as pairs; empty if it can.
        unused_folders: Folders of test images that are not used because the other domain has none.
    """

    domains: dict[str, DomainSurvey]
    pairing_problem: str
    unused_folders: list[str]


@dataclass(frozen=True)
class Problem:
    """A problem of a data set. A serious one prevents training or makes its result worthless."""

    text: str
    serious: bool


def survey(
    root: Path, settings: DataSettings | None = None, *, progress: Callable[[int, int], None] | None = None
) -> Survey:
    """Read every image of a data set once.

    Args:
        settings: Define the encoding of the files; RGB with 8 bits by default.
        progress: Called with the number of files read and the number of all files.

    Raises:
        DataError: When `root` is not a data set.
    """
    splits = {"train": open_dataset(root)}
    if test := open_test_images(root):
        splits["test"] = test
    folders = {f"{split}{domain}": files for split, data in splits.items() for domain, files in data.images.items()}
    total, done = sum(map(len, folders.values())), 0
    domains: dict[str, DomainSurvey] = {}
    for name, files in folders.items():
        encoding = encoding_of(settings, name[-1]) if settings else PICTURE
        domains[name] = domain = DomainSurvey(files, encoding=encoding)
        moments: list[np.ndarray] = []
        for file in files:
            _inspect(file, domain, moments)
            done += 1
            if progress:
                progress(done, total)
        if moments:
            mean = np.mean(moments, axis=0)
            domain.mean, domain.std = tuple(mean[0].tolist()), tuple(mean[1].tolist())
    try:
        open_dataset(root, pairing="paired")
        reason = ""
    except DataError as error:
        reason = str(error).removeprefix(f"{root}: ")
    unused = [name for name in ("testA", "testB") if (root / name).is_dir() and name not in domains]
    return Survey(domains, reason, unused)


def find_problems(data: Survey) -> list[Problem]:
    """List the problems of a data set, serious ones first."""
    problems: list[Problem] = []

    def add(text: str, *, serious: bool = False) -> None:
        problems.append(Problem(text, serious))

    for name, domain in data.domains.items():
        if domain.bad:
            path, reason = next(iter(domain.bad.items()))
            add(
                f"{name}: {len(domain.bad)} of {len(domain.files)} files cannot be read; the first, {path}, {reason}",
                serious=len(domain.bad) == len(domain.files),
            )
        if domain.flat:
            add(f"{name}: {len(domain.flat)} images show a single color; the first: {domain.flat[0]}")
        duplicates = [files for files in domain.checksums.values() if len(files) > 1]
        if duplicates:
            first, second = duplicates[0][:2]
            add(f"{name}: {len(duplicates)} images have duplicates; {first} and {second} are identical")
        small = [size for size in domain.sizes if min(size) < _MIN_SIDE]
        if small:
            add(f"{name}: {len(small)} images are smaller than {_MIN_SIDE} pixels, such as {small[0][0]}×{small[0][1]}")
        long = [size for size in domain.sizes if max(size) > _MAX_ASPECT_RATIO * min(size)]
        if long:
            add(
                f"{name}: {len(long)} images have an aspect ratio above {_MAX_ASPECT_RATIO}, such as "
                f"{long[0][0]}×{long[0][1]}, and would be squeezed to a square; "
                'data.resize = "shorter_side" keeps their aspect ratio'
            )
        if 0 < domain.gray < len(domain.sizes):
            add(f"{name}: {domain.gray} of {len(domain.sizes)} images are gray")
    _compare(data, "trainA", "trainB", add, "so the domains overlap", serious=True)
    for domain in "AB":
        _compare(data, f"train{domain}", f"test{domain}", add, "so test scores are too good", serious=False)
    for name in data.unused_folders:
        add(f"{name} is not used: the other domain has no test images")
    return sorted(problems, key=lambda problem: not problem.serious)


def draw_contact_sheet(data: Survey, *, columns: int = 8, rows: int = 2, side: int = 96) -> Image.Image:
    """Draw a picture with `rows` rows of thumbnails per domain, evenly spaced over its files."""
    font = ImageFont.load_default(_FONT_SIZE)
    height = _HEADING + rows * side
    sheet = Image.new("RGB", (columns * side, len(data.domains) * height), "white")
    pen = ImageDraw.Draw(sheet)
    for index, (name, domain) in enumerate(data.domains.items()):
        top = index * height
        pen.text((4, top + 3), f"{name}: {len(domain.files)} images", fill="black", font=font)
        files = [file for file in domain.files if str(file.path) not in domain.bad]
        for cell, file in enumerate(evenly_spaced(files, columns * rows)):
            pixels = read_pixels(file, domain.encoding)
            picture = render_tensor(domain.encoding.to_floats(pixels))
            picture.thumbnail((side - 4, side - 4), Image.Resampling.LANCZOS)
            left = cell % columns * side + (side - picture.width) // 2
            sheet.paste(picture, (left, top + _HEADING + cell // columns * side + (side - picture.height) // 2))
    return sheet


def describe_sizes(sizes: list[tuple[int, int]]) -> str:
    """Describe image sizes in one line: `256×256` if all are equal, otherwise the smallest, the median and the largest."""
    if not sizes:
        return "none"
    common, count = Counter(sizes).most_common(1)[0]
    if count == len(sizes):
        return f"{common[0]}×{common[1]}"
    ordered = sorted(sizes, key=lambda size: size[0] * size[1])
    three = (ordered[0], ordered[(len(ordered) - 1) // 2], ordered[-1])
    return ", ".join(f"{w}×{h}" for w, h in three) + " (smallest, median, largest)"


def _inspect(file: ImageFile, domain: DomainSurvey, moments: list[np.ndarray]) -> None:
    encoding = domain.encoding
    try:
        pixels = read_pixels(file, encoding)
    except DataError as error:
        path = str(file.path)
        domain.bad[path] = str(error).removeprefix(f"{path}: ")
        return
    size = (pixels.shape[1], pixels.shape[0])
    domain.sizes.append(size)
    digest = hashlib.sha256(repr(size).encode() + pixels.tobytes()).hexdigest()
    domain.checksums.setdefault(digest, []).append(str(file))
    flattened = pixels.reshape(-1, encoding.channels).astype(np.float32)
    moment = np.stack([flattened.mean(axis=0, dtype=np.float64), flattened.std(axis=0, dtype=np.float64)])
    moments.append(moment)
    if moment[1].max() <= (_MAX_FLAT_STD * encoding.high if encoding.bits else 0):
        domain.flat.append(str(file))
    if encoding.channels > 1 and (pixels.max(axis=2) == pixels.min(axis=2)).all():
        domain.gray += 1


def _compare(
    data: Survey, name: str, other_name: str, add: Callable[..., None], consequence: str, *, serious: bool
) -> None:
    domain, other = data.domains.get(name), data.domains.get(other_name)
    if domain is None or other is None:
        return
    shared = domain.checksums.keys() & other.checksums.keys()
    if shared:
        first = min(shared, key=lambda digest: domain.checksums[digest][0])
        example = f"{domain.checksums[first][0]} and {other.checksums[first][0]} are identical"
        text = f"{len(shared)} images are in {name} and in {other_name}, {consequence}; {example}"
        add(text, serious=serious and len(shared) * 2 > min(len(domain.files), len(other.files)))

"""Looking through a data set: what is in it, and what is wrong with it."""

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from gantoolkit.data.encoding import PICTURE, Encoding, encoding_of
from gantoolkit.data.folders import open_dataset, open_test_images
from gantoolkit.data.images import ImageFile, draw_tensor
from gantoolkit.data.pixels import read_pixels
from gantoolkit.errors import DataError
from gantoolkit.recipes.settings import DataSettings

__all__ = ["DomainSurvey", "Problem", "Survey", "describe_sizes", "draw_contact_sheet", "find_problems", "survey"]

_FLAT = 0.008  # of the range: two of 255 levels
_LONG = 1.5
_TINY = 32
_FONT_SIZE = 12
_HEADING = 20


@dataclass
class DomainSurvey:
    """The images of one domain in one split.

    Args:
        files: All that are taken for images.
        sizes: Width and height of each that can be read.
        bad: Files that cannot be read, with the reason.
        flat: Files that show one color, or hold one value, only.
        gray: How many of those with several channels show no color.
        checksums: Files by the content of what they show.
        mean: Mean of each channel over the images, in the values that files hold: for pictures red, green, blue, 0 to 255.
        std: Mean over the images of each channel's standard deviation.
        encoding: How its images are read.
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
    """A data set's domains by folder name (`trainA`, `testB`), and whether it can be taken as pairs.

    Args:
        domains: What was found in each.
        unpaired_because: Why it cannot be taken as pairs; empty if it can.
        alone: Folders of test images that are not used, as the other domain has none.
    """

    domains: dict[str, DomainSurvey]
    unpaired_because: str
    alone: list[str]


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong; a serious one keeps the set from being trained on, or makes the result worthless."""

    text: str
    serious: bool


def survey(
    root: Path, settings: DataSettings | None = None, *, progress: Callable[[int, int], None] | None = None
) -> Survey:
    """Read every image of a data set once.

    Args:
        settings: Say what its files hold; by default pictures, RGB of 8 bits.
        progress: Told how many files of how many are read.

    Raises:
        DataError: When there is no data set to read.
    """
    splits = {"train": open_dataset(root)}
    if test := open_test_images(root):
        splits["test"] = test
    folders = {f"{split}{x}": files for split, data in splits.items() for x, files in data.images.items()}
    total, done = sum(map(len, folders.values())), 0
    domains: dict[str, DomainSurvey] = {}
    for name, files in folders.items():
        encoding = encoding_of(settings, name[-1]) if settings else PICTURE
        domains[name] = found = DomainSurvey(files, encoding=encoding)
        moments: list[np.ndarray] = []
        for file in files:
            _look_at(file, found, moments)
            done += 1
            if progress:
                progress(done, total)
        if moments:
            mean = np.mean(moments, axis=0)
            found.mean, found.std = tuple(mean[0].tolist()), tuple(mean[1].tolist())
    try:
        open_dataset(root, pairing="paired")
        reason = ""
    except DataError as error:
        reason = str(error).removeprefix(f"{root}: ")
    alone = [name for name in ("testA", "testB") if (root / name).is_dir() and name not in domains]
    return Survey(domains, reason, alone)


def find_problems(found: Survey) -> list[Problem]:
    """What is wrong with a data set, the serious things first."""
    problems: list[Problem] = []

    def note(text: str, *, serious: bool = False) -> None:
        problems.append(Problem(text, serious))

    for name, domain in found.domains.items():
        if domain.bad:
            path, why = next(iter(domain.bad.items()))
            some = len(domain.bad) < len(domain.files)
            note(
                f"{name}: {len(domain.bad)} of {len(domain.files)} files cannot be read; the first, {path}, {why}",
                serious=not some,
            )
        if domain.flat:
            note(f"{name}: {len(domain.flat)} images show one color only; the first: {domain.flat[0]}")
        twice = [files for files in domain.checksums.values() if len(files) > 1]
        if twice:
            note(f"{name}: {len(twice)} images are there more than once; {twice[0][0]} is also {twice[0][1]}")
        small = [size for size in domain.sizes if min(size) < _TINY]
        if small:
            note(f"{name}: {len(small)} images are smaller than {_TINY} pixels, such as {small[0][0]}×{small[0][1]}")
        long = [size for size in domain.sizes if max(size) > _LONG * min(size)]
        if long:
            note(
                f"{name}: {len(long)} images are more than {_LONG} times as long as wide, such as {long[0][0]}×{long[0][1]}, "
                'and would be squeezed to a square; data.resize = "shorter_side" keeps their shape'
            )
        if 0 < domain.gray < len(domain.sizes):
            note(f"{name}: {domain.gray} of {len(domain.sizes)} images show no color")
    _compare(found, "trainA", "trainB", note, "so the domains are not two", serious=True)
    for domain in "AB":
        _compare(found, f"train{domain}", f"test{domain}", note, "so the test says too much", serious=False)
    for name in found.alone:
        note(f"{name} is not used: the other domain has no test images")
    return sorted(problems, key=lambda problem: not problem.serious)


def draw_contact_sheet(found: Survey, *, columns: int = 8, rows: int = 2, side: int = 96) -> Image.Image:
    """A picture with `rows` of small images for each domain, spread evenly over its files."""
    font = ImageFont.load_default(_FONT_SIZE)
    height = _HEADING + rows * side
    sheet = Image.new("RGB", (columns * side, len(found.domains) * height), "white")
    pen = ImageDraw.Draw(sheet)
    for place, (name, domain) in enumerate(found.domains.items()):
        top = place * height
        pen.text((4, top + 3), f"{name}: {len(domain.files)} images", fill="black", font=font)
        files = [file for file in domain.files if str(file.path) not in domain.bad]
        wanted = min(columns * rows, len(files))
        for cell in range(wanted):
            pixels = read_pixels(files[cell * len(files) // wanted], domain.encoding)
            picture = draw_tensor(domain.encoding.to_floats(pixels))
            picture.thumbnail((side - 4, side - 4), Image.Resampling.LANCZOS)
            left = cell % columns * side + (side - picture.width) // 2
            sheet.paste(picture, (left, top + _HEADING + cell // columns * side + (side - picture.height) // 2))
    return sheet


def describe_sizes(sizes: list[tuple[int, int]]) -> str:
    """One line about the sizes of images: `256×256`, or the smallest, the middle and the largest."""
    if not sizes:
        return "none"
    common, count = Counter(sizes).most_common(1)[0]
    if count == len(sizes):
        return f"{common[0]}×{common[1]}"
    ordered = sorted(sizes, key=lambda size: size[0] * size[1])
    three = (ordered[0], ordered[(len(ordered) - 1) // 2], ordered[-1])
    return ", ".join(f"{w}×{h}" for w, h in three) + " (smallest, middle, largest)"


def _look_at(file: ImageFile, found: DomainSurvey, moments: list[np.ndarray]) -> None:
    encoding = found.encoding
    try:
        pixels = read_pixels(file, encoding)
    except DataError as error:
        path = str(file.path)
        found.bad[path] = str(error).removeprefix(f"{path}: ")
        return
    size = (pixels.shape[1], pixels.shape[0])
    found.sizes.append(size)
    digest = hashlib.sha256(repr(size).encode() + pixels.tobytes()).hexdigest()
    found.checksums.setdefault(digest, []).append(str(file))
    flattened = pixels.reshape(-1, encoding.channels).astype(np.float32)
    moment = np.stack([flattened.mean(axis=0, dtype=np.float64), flattened.std(axis=0, dtype=np.float64)])
    moments.append(moment)
    if moment[1].max() <= (_FLAT * encoding.high if encoding.bits else 0):
        found.flat.append(str(file))
    if encoding.channels > 1 and (pixels.max(axis=2) == pixels.min(axis=2)).all():
        found.gray += 1


def _compare(
    found: Survey, name: str, other: str, note: Callable[..., None], consequence: str, *, serious: bool
) -> None:
    here, there = found.domains.get(name), found.domains.get(other)
    if here is None or there is None:
        return
    both = here.checksums.keys() & there.checksums.keys()
    if both:
        first = min(both, key=lambda digest: here.checksums[digest][0])
        same = f"{here.checksums[first][0]} is {there.checksums[first][0]}"
        text = f"{len(both)} images are in {name} and in {other}, {consequence}; {same}"
        note(text, serious=serious and len(both) * 2 > min(len(here.files), len(there.files)))

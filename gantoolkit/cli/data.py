"""`gantoolkit data`: download, check, count, pair and pack data sets."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import cyclopts
from cyclopts import Parameter, validators

from gantoolkit.cli.exit_codes import BAD_INPUT, INCOMPLETE, SUCCESS
from gantoolkit.errors import DataError
from gantoolkit.files.atomic import printable

if TYPE_CHECKING:
    from gantoolkit.data.pairs import WrittenPairs
    from gantoolkit.data.survey import Survey

__all__ = ["app"]

_EXTENSIONS = (".zip", ".tar.gz", ".tgz", ".tar")

app = cyclopts.App(name="data", help="Download a public data set, or check, count, pair and pack your own.")


@app.command
def download(
    name: str | None = None,
    /,
    *,
    out: Path = Path("data"),
    url: str | None = None,
    archive: Path | None = None,
    sha256: str | None = None,
    keep_archive: bool = False,
) -> int:
    """Download and unpack a public data set of the paper. Without a name, list them.

    An interrupted download resumes. Size and SHA-256 are printed. No checksums of these archives are published: note the
    one that is printed, and pass it as --sha256 the next time.

    Parameters
    ----------
    name
        The data set, such as horse2zebra.
    out
        Folder in which the data set's folder is created.
    url
        Download from this URL instead (a mirror).
    archive
        Unpack this archive instead of downloading one.
    sha256
        Checksum that the archive must have.
    keep_archive
        Keep the archive next to the folder.
    """
    from gantoolkit.data.fetch.archives import unpack
    from gantoolkit.data.fetch.catalog import CATALOG, find_public_dataset
    from gantoolkit.data.fetch.download import UnreachableError, file_checksum
    from gantoolkit.data.fetch.download import download as fetch

    if name is None and (url or archive):
        raise DataError("data download: say what to call it, such as gantoolkit data download horses --archive FILE")
    if name is None:
        for dataset in CATALOG.values():
            print(f"{dataset.name:20} {dataset.shows}{'' if dataset.url else ' (available from its authors only)'}")
        return SUCCESS
    if url is None and archive is None:
        url = find_public_dataset(name).url
    folder = out / name
    if Path(name).name != name or name in ("", ".", ".."):
        raise DataError(f"data: '{name}' is not a valid folder name")
    if folder.exists():
        raise DataError(f"{folder}: is there already; remove it to download it again")
    is_download = archive is None
    if archive is None:
        archive = out / f"{name}{next((end for end in _EXTENSIONS if str(url).endswith(end)), '.archive')}"
        try:
            with _progress_bar(f"Downloading {name}", unit="bytes") as progress:
                result = fetch(str(url), archive, sha256=sha256, progress=progress)
        except UnreachableError as error:
            raise UnreachableError(
                f"{error}. Without a network, download it on another machine, then: "
                f"gantoolkit data download {name} --archive FILE"
            ) from error
        resumed = f", {result.resumed_at:,} of them from an earlier attempt" if result.resumed_at else ""
        print(f"{archive.name}: {result.size:,} bytes{resumed}")
        print(f"SHA-256 {result.sha256}")
    elif not archive.is_file():
        raise DataError(f"{archive}: no such file")
    elif sha256 is not None and file_checksum(archive) != sha256.lower():
        raise DataError(f"{archive}: its SHA-256 is {file_checksum(archive)}, not {sha256}")
    count = unpack(archive, folder)
    if is_download and not keep_archive:
        archive.unlink()
    print(f"{count:,} files in {folder}; look at them with: gantoolkit data check {folder}")
    return SUCCESS


@app.command
def check(folder: Path, /, *, recipe: str = "") -> int:
    """Read every image of a data set and report problems, and how files are read.

    Exit code 0: no problems; 3: problems that training tolerates; 2: a recipe cannot be trained on it.

    Parameters
    ----------
    folder
        The data set: a folder with trainA and trainB, with train/A and train/B, or with train, whose images show A and B
        side by side.
    recipe
        A recipe's name or file. It defines the encoding if that is not 8-bit RGB (data.channels_A, data.range_A), how images
        are resized, and whether pairs are needed.
    """
    from gantoolkit.data.survey import find_notes, find_problems

    result = _survey(folder, recipe)
    problems = find_problems(result)
    for problem in problems:
        print(f"{'error' if problem.serious else 'flaw'}: {printable(problem.text)}")
    for note in find_notes(result):
        print(f"note: {printable(note)}")
    if result.pairing_problem:
        print(f"for recipes that learn without pairs only: {printable(result.pairing_problem)}")
    else:
        print("for every recipe: A and B are pairs")
    counts = ", ".join(f"{name} {len(domain.files)}" for name, domain in result.domains.items())
    print(f"{folder}: {counts}; {len(problems) or 'no'} problem{'s' if len(problems) != 1 else ''} found")
    return BAD_INPUT if any(problem.serious for problem in problems) else INCOMPLETE if problems else SUCCESS


@app.command
def stats(folder: Path, /, *, sheet: Path | None = None, recipe: str = "") -> int:
    """Print statistics of a data set, and draw a contact sheet.

    Parameters
    ----------
    folder
        The data set.
    sheet
        PNG or JPEG file to write. Default: the folder's name with -sheet.png appended.
    recipe
        A recipe's name or file that defines the encoding if it is not 8-bit RGB.
    """
    from rich.table import Table
    from rich.text import Text

    from gantoolkit.cli.evaluate import print_whole
    from gantoolkit.data import write_image
    from gantoolkit.data.survey import describe_sizes, draw_contact_sheet

    result = _survey(folder, recipe)
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("", "images", "unreadable", "gray", "size", "mean of each channel", "standard deviation", "unit"):
        table.add_column(heading)
    for name, domain in result.domains.items():
        form = ".0f" if domain.encoding.bits else ".4g"
        mean, std = (" ".join(format(value, form) for value in values) for values in (domain.mean, domain.std))
        sizes = describe_sizes(domain.sizes.values())
        counts = (str(count) for count in (len(domain.files), len(domain.bad), domain.gray))
        table.add_row(name, *counts, sizes, mean, std, Text(domain.encoding.value_unit))
    print_whole(table)
    target = sheet or folder.with_name(f"{folder.resolve().name}-sheet.png")
    write_image(draw_contact_sheet(result), target)
    print(f"contact sheet: {target}")
    for note in result.passed_over:
        print(f"note: {printable(note)}", file=sys.stderr)
    return INCOMPLETE if result.passed_over or any(domain.bad for domain in result.domains.values()) else SUCCESS


@app.command
def pair(
    a: Path,
    b: Path,
    /,
    *,
    out: Path,
    test_share: Annotated[float, Parameter(validator=validators.Number(gte=0, lt=1))] = 0.0,
    resize: bool = False,
    resample: Literal["bicubic", "nearest"] = "bicubic",
    seed: int = 0,
) -> int:
    """Join two folders into aligned pairs, as in the data sets of pix2pix: each image shows A and B side by side.

    Parameters
    ----------
    a
        Folder of images of A.
    b
        Folder of images of B with the same names; extensions may differ.
    out
        Folder of the new data set.
    test_share
        Fraction of the pairs to hold out as test images, such as 0.1.
    resize
        Resize each B to the size of its A where they differ.
    resample
        How --resize resizes. nearest mixes no colors, for label maps.
    seed
        Determines which pairs are held out.
    """
    from gantoolkit.data.pairs import join_pairs

    pairs = join_pairs(a, b, out, test_share=test_share, resize=resize, resample=resample, seed=seed)
    print(f"{', '.join(f'{count} pairs in {out / split}' for split, count in pairs.counts.items())}")
    print(f"look at them with: gantoolkit data check {out}")
    return _report(pairs)


@app.command
def pack(
    folder: Path,
    /,
    *,
    out: Path,
    side: Annotated[int, Parameter(validator=validators.Number(gte=1))],
    test_side: Annotated[int | None, Parameter(validator=validators.Number(gte=1))] = None,
    train: Annotated[int | None, Parameter(validator=validators.Number(gte=1))] = None,
    test: Annotated[int | None, Parameter(validator=validators.Number(gte=1))] = None,
    palette: str = "",
    labels: Literal["A", "B"] = "A",
) -> int:
    """Write a small copy of a paired data set, to carry it to another machine.

    Photographs become JPEG files. Label maps become PNG files whose pixels have the exact colors of a palette.

    Parameters
    ----------
    folder
        The data set. Its images are pairs.
    out
        Folder of the copy.
    side
        Side in pixels of the training images. Set data.load_size to it, and they are not resized again.
    test_side
        The same for test images and data.crop_size. Default: side.
    train
        Pack at most this many training pairs, evenly spaced.
    test
        Pack at most this many test pairs, evenly spaced.
    palette
        Colors of the label maps: cityscapes, camvid, or the path of a TOML file. Without it, both domains are photographs.
    labels
        The domain that holds the label maps.
    """
    from gantoolkit.blocks.metrics.palette import find_palette
    from gantoolkit.data.packing import pack_dataset
    from gantoolkit.runtime.memory import format_bytes

    colors = find_palette(palette) if palette else None
    with _progress_bar("Packing", unit="images") as progress:
        packed = pack_dataset(
            folder,
            out,
            side=side,
            test_side=test_side,
            train=train,
            test=test,
            palette=colors,
            labels=labels,
            progress=progress,
        )
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    counts = ", ".join(f"{count} pairs in {split}" for split, count in packed.counts.items())
    print(f"{counts}: {format_bytes(size)} in {out}")
    return _report(packed)


def _report(pairs: "WrittenPairs") -> int:
    """Print how files were read and what was not used, and return the exit code."""
    for note in pairs.notes:
        print(f"note: {printable(note)}", file=sys.stderr)
    return INCOMPLETE if pairs.passed_over else SUCCESS


def _survey(folder: Path, recipe: str) -> "Survey":
    from gantoolkit.data.survey import survey
    from gantoolkit.recipes import find_recipe
    from gantoolkit.recipes.building import pairing_of

    resolved = find_recipe(recipe).check() if recipe else None
    settings, pairing = (resolved.data, pairing_of(resolved)) if resolved else (None, None)
    with _progress_bar("Reading", unit="images") as progress:
        return survey(folder, settings, pairing=pairing, progress=progress)


@contextmanager
def _progress_bar(title: str, *, unit: str) -> Iterator[Callable[[int, int | None], None]]:
    """Show a progress bar if the output is a terminal."""
    from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    count = DownloadColumn() if unit == "bytes" else MofNCompleteColumn()
    columns = (TextColumn("{task.description}"), BarColumn(), count, TimeRemainingColumn())
    with Progress(*columns, disable=not sys.stdout.isatty()) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)

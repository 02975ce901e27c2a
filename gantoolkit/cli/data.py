"""`gantoolkit data`: fetching, checking, pairing and counting data sets."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import cyclopts
from cyclopts import Parameter, validators

from gantoolkit.errors import DataError

if TYPE_CHECKING:
    from gantoolkit.data.survey import Survey

__all__ = ["app"]

_SERIOUS, _FLAWED = 2, 3
_ENDINGS = (".zip", ".tar.gz", ".tgz", ".tar")

app = cyclopts.App(name="data", help="Fetch a public data set, or check, pair and count your own.")


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
    """Fetch and unpack a public data set of the paper; without a name, list them.

    A download that broke off is continued. Size and SHA-256 are shown; no checksums of these archives are published, so
    write it down, and give it with --sha256 the next time.

    Parameters
    ----------
    name
        The data set, such as horse2zebra.
    out
        Folder that gets a folder of that name.
    url
        Fetch it from here instead (a mirror).
    archive
        Unpack this file, fetched by other means, and use no network.
    sha256
        Checksum that the archive must have.
    keep_archive
        Leave the archive beside the folder.
    """
    from gantoolkit.data.fetch.archives import unpack
    from gantoolkit.data.fetch.catalog import CATALOG, find_public_dataset
    from gantoolkit.data.fetch.download import UnreachableError, file_checksum
    from gantoolkit.data.fetch.download import download as fetch

    if name is None and (url or archive):
        raise DataError("data download: say what to call it, such as gantoolkit data download horses --archive FILE")
    if name is None:
        for each in CATALOG.values():
            print(f"{each.name:20} {each.shows}{'' if each.url else ' (to be had from its authors only)'}")
        return 0
    if url is None and archive is None:
        url = find_public_dataset(name).url
    folder = out / name
    if Path(name).name != name or name in ("", ".", ".."):
        raise DataError(f"data: '{name}' is no name of a folder")
    if folder.exists():
        raise DataError(f"{folder}: is there already; remove it to fetch it again")
    fetched = archive is None
    if archive is None:
        archive = out / f"{name}{next((end for end in _ENDINGS if str(url).endswith(end)), '.archive')}"
        try:
            with _bar(f"Fetching {name}", unit="bytes") as progress:
                done = fetch(str(url), archive, sha256=sha256, progress=progress)
        except UnreachableError as error:
            raise UnreachableError(
                f"{error}. Is there no network here? Fetch it elsewhere, and then: "
                f"gantoolkit data download {name} --archive FILE"
            ) from error
        before = f", {done.resumed_at:,} of them from before" if done.resumed_at else ""
        print(f"{archive.name}: {done.size:,} bytes{before}")
        print(f"SHA-256 {done.sha256}")
    elif not archive.is_file():
        raise DataError(f"{archive}: no such file")
    elif sha256 is not None and file_checksum(archive) != sha256.lower():
        raise DataError(f"{archive}: its SHA-256 is {file_checksum(archive)}, not {sha256}")
    count = unpack(archive, folder)
    if fetched and not keep_archive:
        archive.unlink()
    print(f"{count:,} files in {folder}; look at them with: gantoolkit data check {folder}")
    return 0


@app.command
def check(folder: Path, /, *, recipe: str = "") -> int:
    """Read every image of a data set and say what is wrong with it.

    Exit code 0: nothing; 3: flaws that training survives; 2: it cannot be trained on.

    Parameters
    ----------
    folder
        The data set, with trainA and trainB in it, or with train, where A and B are side by side.
    recipe
        A recipe's name or file that says what the images hold, where these are not pictures: data.channels_A, data.range_A.
    """
    from gantoolkit.data.survey import find_problems

    found = _survey(folder, recipe)
    problems = find_problems(found)
    for problem in problems:
        print(f"{'error' if problem.serious else 'flaw'}: {problem.text}")
    if found.unpaired_because:
        print(f"for recipes that learn without pairs only: {found.unpaired_because}")
    else:
        print("for every recipe: A and B are pairs")
    counts = ", ".join(f"{name} {len(domain.files)}" for name, domain in found.domains.items())
    print(f"{folder}: {counts}; {len(problems) or 'no'} problem{'s' if len(problems) != 1 else ''} found")
    return _SERIOUS if any(problem.serious for problem in problems) else _FLAWED if problems else 0


@app.command
def stats(folder: Path, /, *, sheet: Path | None = None, recipe: str = "") -> int:
    """Count the images of a data set, and draw some of them on a contact sheet.

    Parameters
    ----------
    folder
        The data set.
    sheet
        PNG or JPEG to write; by default the folder's name with -sheet.png behind it.
    recipe
        A recipe's name or file that says what the images hold, where these are not pictures.
    """
    from rich.console import Console
    from rich.table import Table

    from gantoolkit.data import write_image
    from gantoolkit.data.survey import describe_sizes, draw_contact_sheet

    found = _survey(folder, recipe)
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("", "images", "unreadable", "gray", "size", "mean of each channel", "standard deviation"):
        table.add_column(heading)
    for name, domain in found.domains.items():
        form = ".0f" if domain.encoding.bits else ".4g"
        mean, std = (" ".join(format(value, form) for value in figures) for figures in (domain.mean, domain.std))
        sizes = describe_sizes(domain.sizes)
        table.add_row(name, str(len(domain.files)), str(len(domain.bad)), str(domain.gray), sizes, mean, std)
    Console(soft_wrap=True, highlight=False).print(table)
    target = sheet or folder.with_name(f"{folder.resolve().name}-sheet.png")
    write_image(draw_contact_sheet(found), target)
    print(f"contact sheet: {target}")
    return 0


@app.command
def pair(
    a: Path,
    b: Path,
    /,
    *,
    out: Path,
    test_share: Annotated[float, Parameter(validator=validators.Number(gte=0, lt=1))] = 0.0,
    resize: bool = False,
    seed: int = 0,
) -> int:
    """Join two folders into aligned pairs: A and B of one name side by side in one image, as pix2pix's data sets have them.

    Parameters
    ----------
    a
        Folder of images of A.
    b
        Folder of images of B, of the same names; endings may differ.
    out
        Folder of the new data set.
    test_share
        Share of the pairs to keep out of training, such as 0.1.
    resize
        Bring each B to the size of its A, where they differ.
    seed
        Decides which pairs are kept out.
    """
    from gantoolkit.data.pairs import join_pairs

    counts = join_pairs(a, b, out, test_share=test_share, resize=resize, seed=seed)
    print(f"{', '.join(f'{count} pairs in {out / split}' for split, count in counts.items())}")
    print(f"look at them with: gantoolkit data check {out}")
    return 0


def _survey(folder: Path, recipe: str) -> "Survey":
    from gantoolkit.data.survey import survey
    from gantoolkit.recipes import find_recipe

    settings = find_recipe(recipe).data if recipe else None
    with _bar("Reading", unit="images") as progress:
        return survey(folder, settings, progress=progress)


@contextmanager
def _bar(title: str, *, unit: str) -> Iterator[Callable[[int, int | None], None]]:
    """A progress bar on a terminal, nothing elsewhere."""
    from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    count = DownloadColumn() if unit == "bytes" else MofNCompleteColumn()
    columns = (TextColumn("{task.description}"), BarColumn(), count, TimeRemainingColumn())
    with Progress(*columns, disable=not sys.stdout.isatty()) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)

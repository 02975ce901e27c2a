"""`gantoolkit study`: serving a perceptual study, and reading what came of it."""

import sys
from pathlib import Path
from typing import Annotated

import cyclopts
from cyclopts import Parameter, validators

from gantoolkit.errors import DataError, requires_extra

__all__ = ["app"]

app = cyclopts.App(
    name="study", help="Let people say which of two images is real, and count how often a fake fools them."
)

_Count = Annotated[int, Parameter(validator=validators.Number(gte=0, lte=1000))]


@app.command
def serve(
    *,
    real: Path,
    fakes: Annotated[list[str], Parameter(name="--fake", negative=())],
    database: Path = Path("study.sqlite"),
    host: str = "127.0.0.1",
    port: Annotated[int, Parameter(validator=validators.Number(gte=1, lte=65535))] = 8765,
    names: Annotated[list[str] | None, Parameter(name="--name", negative=())] = None,
    token: str | None = None,
    practice: _Count = 10,
    counted: Annotated[int, Parameter(validator=validators.Number(gte=1, lte=1000))] = 40,
    exposure: Annotated[float, Parameter(validator=validators.Number(gte=0.1, lte=60))] = 1.0,
    side: Annotated[int, Parameter(validator=validators.Number(gte=32, lte=1024))] = 256,
    participants: Annotated[int, Parameter(validator=validators.Number(gte=1))] = 1000,
) -> int:
    """Open the page of a study, with the protocol of the paper (Zhu et al. 2017, §5.1.2), until Ctrl-C.

    Every answer is kept as soon as it is given, in one transaction; the same command goes on with a study that was stopped.
    The page can be reached from this machine alone unless --host says otherwise; then it asks for a token.

    Parameters
    ----------
    real
        Folder of real images.
    fakes
        An algorithm and the folder of its images, as often as you like: --fake cyclegan=fakes/cyclegan.
    database
        File for the answers.
    host
        Address to bind to.
    port
        Port to bind to.
    names
        A host name under which others reach it, as often as you like; needed with --host 0.0.0.0.
    token
        What visitors from elsewhere have to bring; one is made up by default.
    practice
        Trials with feedback, which do not count.
    counted
        Trials that count.
    exposure
        Seconds for which both images are seen.
    side
        Side in pixels of the square in which images are sent.
    participants
        Sessions that may be begun.
    """
    from gantoolkit.evaluation.study import Materials, Protocol, Store

    with requires_extra("study", "gantoolkit study", DataError):
        from gantoolkit.evaluation.study.server import run_server
        from gantoolkit.web.listening import address_of, choose_token, names_of

    folders: dict[str, Path] = {}
    for given in fakes:
        name, equals, folder = given.partition("=")
        if not equals or not name or not folder:
            raise DataError(f"--fake {given}: write NAME=DIR, such as --fake cyclegan=fakes/cyclegan")
        if name in folders:
            raise DataError(f"--fake {given}: there are two algorithms of the name {name}")
        folders[name] = Path(folder)
    names_of(host, names or [])  # says what is wrong with them before images are read
    materials = Materials.open(real, folders, side=side)
    for problem in materials.problems:
        print(f"warning: {problem}", file=sys.stderr)
    wanted = practice + counted
    for name, files in {"the real images": materials.real, **materials.fakes}.items():
        if len(files) < wanted:
            print(f"warning: {name}: {len(files)} for {wanted} trials; some are seen twice", file=sys.stderr)
    protocol = Protocol(practice, counted, exposure, participants)
    roots = {"": real, **folders}
    listed = {
        name: [path.relative_to(roots[name]).as_posix() for path in files]
        for name, files in {"": materials.real, **materials.fakes}.items()
    }
    store = Store(database, protocol, listed.pop(""), listed)
    token = choose_token(host, token)
    print(f"study of {', '.join(folders)}, answers in {database}", flush=True)
    print(address_of(host, port, names or [], token), flush=True)
    try:
        run_server(store, materials, host=host, port=port, names=names or [], token=token)
    finally:
        store.close()
    return 0


@app.command
def report(database: Path, /, *, out: Path) -> int:
    """Count how often fakes were taken for real: a table here, and CSV, JSON and a page with a chart in a folder.

    Parameters
    ----------
    database
        The study's file; it may be in use.
    out
        Folder for study.csv, study.json, trials.csv and study.html.
    """
    from rich.table import Table

    from gantoolkit.cli.evaluate import print_whole
    from gantoolkit.evaluation.study.summary import summarize_study, write_summary

    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("", "fooled", "95 % interval", "over", "trials", "finished", "not finished"):
        table.add_column(heading)
    for each in summarize_study(database):
        cells = ("", "", "")
        if each.trials and each.share.low is not None and each.share.high is not None:
            interval = f"{100 * each.share.low:.1f} to {100 * each.share.high:.1f} %"
            cells = (f"{100 * each.share.value:.1f} %", interval, each.interval)
        table.add_row(each.algorithm, *cells, str(each.trials), str(each.participants), str(each.unfinished))
    print_whole(table)
    print("written: " + ", ".join(str(path) for path in write_summary(database, out)))
    return 0

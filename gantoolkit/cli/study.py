"""`gantoolkit study`: run a perceptual study and report its results."""

import sys
from pathlib import Path
from typing import Annotated

import cyclopts
from cyclopts import Parameter, validators

from gantoolkit.cli.exit_codes import SUCCESS
from gantoolkit.errors import DataError, requires_extra
from gantoolkit.files.paths import user_path

__all__ = ["app"]

app = cyclopts.App(name="study", help="Ask people which of two images is real, and report how often a fake fools them.")

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
    """Serve the page of a study, with the protocol of the paper (Zhu et al. 2017, §5.1.2), until Ctrl-C.

    Every answer is stored at once, in one transaction. The same command resumes a study that was stopped. The page can be
    reached from this machine only, unless --host says otherwise; then a token is required.

    Parameters
    ----------
    real
        Folder of real images.
    fakes
        An algorithm and the folder of its images, such as --fake cyclegan=fakes/cyclegan. May be repeated.
    database
        File for the answers.
    host
        Address to bind to.
    port
        Port to bind to.
    names
        A host name by which others reach the server. May be repeated. Required with --host 0.0.0.0.
    token
        Token that visitors from other machines must send. By default, one is generated.
    practice
        Number of practice trials, which give feedback and do not count.
    counted
        Number of trials that count.
    exposure
        Time for which both images are shown, in seconds.
    side
        Side of the square in which images are shown, in pixels.
    participants
        Largest number of sessions.
    """
    from gantoolkit.evaluation.study import Materials, Protocol, Store

    with requires_extra("study", "gantoolkit study", DataError):
        from gantoolkit.evaluation.study.server import run_server
        from gantoolkit.web.listening import address_of, choose_token, names_of

    folders: dict[str, Path] = {}
    for option in fakes:
        name, equals, folder = option.partition("=")
        if not equals or not name or not folder:
            raise DataError(f"--fake {option}: write NAME=DIR, such as --fake cyclegan=fakes/cyclegan")
        if name in folders:
            raise DataError(f"--fake {option}: there are two algorithms of the name {name}")
        folders[name] = user_path(folder)
    names_of(host, names or [])  # raises before images are read
    materials = Materials.open(real, folders, side=side)
    for problem in materials.problems:
        print(f"warning: {problem}", file=sys.stderr)
    trials = practice + counted
    for name, files in {"the real images": materials.real, **materials.fakes}.items():
        if len(files) < trials:
            print(f"warning: {name}: {len(files)} images for {trials} trials; some are shown twice", file=sys.stderr)
    protocol = Protocol(practice, counted, exposure, participants)
    roots = {"": real, **folders}
    file_names = {
        name: [path.relative_to(roots[name]).as_posix() for path in files]
        for name, files in {"": materials.real, **materials.fakes}.items()
    }
    store = Store(database, protocol, file_names.pop(""), file_names)
    token = choose_token(host, token)
    print(f"study of {', '.join(folders)}, answers in {database}", flush=True)
    print(address_of(host, port, names or [], token), flush=True)
    try:
        run_server(store, materials, host=host, port=port, names=names or [], token=token)
    finally:
        store.close()
    return SUCCESS


@app.command
def report(database: Path, /, *, out: Path) -> int:
    """Report how often fakes were judged to be real: print a table, and write CSV, JSON and a page with a chart.

    Parameters
    ----------
    database
        The study's file. The study may still be running.
    out
        Folder for study.csv, study.json, trials.csv and study.html.
    """
    from rich.table import Table
    from rich.text import Text

    from gantoolkit.cli.evaluate import print_whole
    from gantoolkit.evaluation.study.summary import summarize_study, write_summary

    results = summarize_study(database)
    files = write_summary(database, out)
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("", "fooled", "95 % interval", "over", "trials", "finished", "not finished"):
        table.add_column(heading)
    for row in results:
        cells = ("", "", "")
        if row.trials and row.share.low is not None and row.share.high is not None:
            interval = f"{100 * row.share.low:.1f} to {100 * row.share.high:.1f} %"
            cells = (f"{100 * row.share.value:.1f} %", interval, row.interval)
        table.add_row(Text(row.algorithm), *cells, str(row.trials), str(row.participants), str(row.unfinished))
    print_whole(table)
    print("written: " + ", ".join(str(path) for path in files))
    return SUCCESS

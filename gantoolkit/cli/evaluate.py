"""`gantoolkit evaluate`."""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter, validators

from gantoolkit.cli.exit_codes import INCOMPLETE
from gantoolkit.cli.train import parse_setting
from gantoolkit.errors import DataError

if TYPE_CHECKING:
    from rich.table import Table

    from gantoolkit.evaluation.scoring import RunScores

__all__ = ["evaluate", "parse_metrics", "print_scores", "print_whole", "report_skipped"]


def evaluate(
    *runs: Path,
    out: Path,
    data: Path | None = None,
    metrics: Annotated[list[str] | None, Parameter(name="--metric", negative=())] = None,
    split: str = "test",
    images: Annotated[int | None, Parameter(validator=validators.Number(gte=1))] = None,
    generators: Literal["last", "best"] = "last",
    device: str = "auto",
) -> int:
    """Measure runs on test images: a table here, and CSV, JSON and a page with pictures in a folder.

    Where the files of testA and testB have the same names they are taken for pairs. Beside the runs stand references that need
    no network: the input itself, the truth itself, the truth of another image.

    Parameters
    ----------
    runs
        Folders of runs.
    out
        Folder for scores.csv, images.csv, scores.json and report.html.
    data
        Folder of the data set, if it is not the one that a run was trained on.
    metrics
        A metric's name (`gantoolkit blocks metrics`), or a parameter of one, as often as you like: --metric psnr --metric
        fid.backbone=resnet18; l1, psnr and ssim by default.
    split
        Which images: test means testA and testB, or halves of the images in test.
    images
        At most so many of each domain, spread evenly.
    generators
        The last ones, or those that were best while the run trained (training.evaluate_every).
    device
        cpu, cuda, cuda:1, or auto.
    """
    from gantoolkit.data.evaluation_images import EvaluationImages
    from gantoolkit.evaluation.pages import Scored, write_page
    from gantoolkit.evaluation.scoring import DEFAULT_METRICS, choose_metrics, score_references, score_run
    from gantoolkit.evaluation.tables import write_scores
    from gantoolkit.run import Run

    if not runs:
        raise DataError("evaluate needs runs: gantoolkit evaluate runs/one runs/two --out scores")
    chosen = choose_metrics(*parse_metrics(metrics or list(DEFAULT_METRICS)))
    opened = {path: Run.open(path, data=data) for path in dict.fromkeys(runs)}
    names = _short_names(list(opened))
    scored: list[Scored] = []
    references: list[RunScores] = []
    seen: list[object] = []
    for path, run in opened.items():
        measured = EvaluationImages.open(run.data, run.recipe.data, split=split).take(images).readable()
        print(f"measuring {names[path]} …", file=sys.stderr, flush=True)
        scores = score_run(run, measured, chosen, name=names[path], best=generators == "best", device=device)
        scored.append(Scored(scores, run, measured, best=generators == "best"))
        look = (run.data.resolve(), run.recipe.data.resize, run.recipe.data.load_size, run.recipe.data.crop_size)
        if look not in seen:
            seen.append(look)
            references += score_references(measured, list(scores.directions), chosen)
    everything = [each.scores for each in scored] + references
    print_scores(everything)
    files = write_scores(everything, out)
    page = out / "report.html"
    write_page(page, scored, references, title="Scores", device=device)
    print("written: " + ", ".join(str(path) for path in [*files, page]))
    return report_skipped(each.scores for each in scored)


def report_skipped(scores: "Iterable[RunScores]") -> int:
    """Say which files could not be read; the exit code."""
    skipped = {reason for each in scores for reason in each.skipped}
    for reason in sorted(skipped):
        print(f"skipped: {reason}", file=sys.stderr)
    return INCOMPLETE if skipped else 0


def print_scores(scores: "Sequence[RunScores]") -> None:
    """A table for each direction."""
    from rich.console import Console
    from rich.table import Table

    from gantoolkit.evaluation.tables import directions_of, figure_names, format_figure
    from gantoolkit.plugins import Direction

    console = Console(soft_wrap=True, highlight=False)
    for direction in directions_of(scores):
        rows = [each for each in scores if direction in each.directions]
        way = Direction(direction)
        title = f"{way.source} → {way.target}, 95 % intervals over {rows[0].directions[direction].images} images"
        table = Table(box=None, padding=(0, 2, 0, 0), title=title, title_justify="left", title_style="bold")
        names = figure_names(scores, direction)
        table.add_column("", no_wrap=True)
        for name in names:
            table.add_column(name, no_wrap=True)
        for each in rows:
            figures = each.directions[direction].figures
            style = None if each.path else "italic"
            table.add_row(each.name, *(format_figure(figures.get(name)) for name in names), style=style)
        print_whole(table)
        for said in dict.fromkeys(said for each in rows for said in each.directions[direction].notes):
            console.print(f"  {said}", markup=False, style="dim")


def print_whole(table: "Table") -> None:
    """Print a table as wide as it is: a line that is too long is better wrapped by the terminal than cut off here."""
    from rich.console import Console

    needed = Console(width=10_000).measure(table).maximum
    Console(soft_wrap=True, highlight=False, width=max(Console().width, needed)).print(table)


def parse_metrics(texts: "Sequence[str]") -> tuple[list[str], dict[str, Any]]:
    """Names of metrics, and their parameters by dotted path, from words such as `psnr` and `fid.backbone=resnet18`."""
    names = dict.fromkeys(text.partition("=")[0].partition(".")[0] for text in texts)
    return list(names), dict(parse_setting(text) for text in texts if "=" in text)


def _short_names(runs: Sequence[Path]) -> dict[Path, str]:
    """The last part of each path, or as many as it takes to tell them apart."""
    for depth in range(1, 20):
        names = {path: "/".join(path.resolve().parts[-depth:]) for path in runs}
        if len(set(names.values())) == len(runs):
            return names
    return {path: str(path) for path in runs}

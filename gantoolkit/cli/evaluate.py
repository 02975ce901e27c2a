"""`gantoolkit evaluate`."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter, validators

from gantoolkit.errors import DataError

if TYPE_CHECKING:
    from gantoolkit.evaluation.scoring import RunScores

__all__ = ["evaluate", "print_scores"]

_SOME_SKIPPED = 3


def evaluate(
    *runs: Path,
    out: Path,
    data: Path | None = None,
    metrics: Annotated[list[str] | None, Parameter(name="--metric", negative=())] = None,
    settings: Annotated[list[str] | None, Parameter(name="--set", negative=())] = None,
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
        A metric's name, as often as you like (`gantoolkit blocks metrics`); l1, psnr and ssim by default.
    settings
        A metric's parameter: --set fcn_score.segmenter=segmenter.safetensors --set fid.backbone=resnet18.
    split
        Which images: test means testA and testB, or halves of the images in test.
    images
        At most so many of each domain, spread evenly.
    generators
        The last ones, or those that were best while the run trained (training.evaluate_every).
    device
        cpu, cuda, cuda:1, or auto.
    """
    from gantoolkit.cli.train import parse_setting
    from gantoolkit.data.measured import MeasuredImages
    from gantoolkit.evaluation.pages import Scored, write_page
    from gantoolkit.evaluation.scoring import DEFAULT_METRICS, choose_metrics, score_references, score_run
    from gantoolkit.evaluation.tables import write_scores
    from gantoolkit.run import Run

    if not runs:
        raise DataError("evaluate needs runs: gantoolkit evaluate runs/one runs/two --out scores")
    chosen = choose_metrics(metrics or DEFAULT_METRICS, dict(map(parse_setting, settings or [])))
    opened = {path: Run.open(path, data=data) for path in dict.fromkeys(runs)}
    names = _short_names(list(opened))
    scored: list[Scored] = []
    references: list[RunScores] = []
    seen: list[object] = []
    for path, run in opened.items():
        measured = MeasuredImages.open(run.data, run.recipe.data, split=split).take(images)
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
    skipped = {reason for each in scored for found in each.scores.directions.values() for reason in found.skipped}
    for reason in sorted(skipped):
        print(f"skipped: {reason}", file=sys.stderr)
    return _SOME_SKIPPED if skipped else 0


def print_scores(scores: "Sequence[RunScores]") -> None:
    """A table for each direction."""
    from rich.console import Console
    from rich.table import Table

    from gantoolkit.evaluation.tables import directions_of, figure_names, format_figure

    console = Console(soft_wrap=True, highlight=False)
    for direction in directions_of(scores):
        rows = [each for each in scores if direction in each.directions]
        title = f"{direction[0]} → {direction[-1]}, 95 % intervals over {rows[0].directions[direction].images} images"
        table = Table(box=None, padding=(0, 2, 0, 0), title=title, title_justify="left", title_style="bold")
        names = figure_names(scores, direction)
        table.add_column("", no_wrap=True)
        for name in names:
            table.add_column(name, no_wrap=True)
        for each in rows:
            figures = each.directions[direction].figures
            style = None if each.path else "italic"
            table.add_row(each.name, *(format_figure(figures.get(name)) for name in names), style=style)
        # A line that is too long for the terminal is better wrapped by it than cut off here.
        needed = Console(width=10_000).measure(table).maximum
        Console(soft_wrap=True, highlight=False, width=max(console.width, needed)).print(table)
        for said in dict.fromkeys(said for each in rows for said in each.directions[direction].conditions):
            console.print(f"  {said}", markup=False, style="dim")


def _short_names(runs: Sequence[Path]) -> dict[Path, str]:
    """The last part of each path, or as many as it takes to tell them apart."""
    for depth in range(1, 20):
        names = {path: "/".join(path.resolve().parts[-depth:]) for path in runs}
        if len(set(names.values())) == len(runs):
            return names
    return {path: str(path) for path in runs}

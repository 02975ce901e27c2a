"""`gantoolkit evaluate`."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter, validators

from gantoolkit.cli.exit_codes import INCOMPLETE, SUCCESS
from gantoolkit.cli.settings import parse_settings
from gantoolkit.errors import DataError

if TYPE_CHECKING:
    from rich.table import Table

    from gantoolkit.evaluation.scoring import RunScores

__all__ = ["evaluate", "parse_metrics", "print_scores", "print_whole", "report_files"]


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
    """Score runs on test images: print a table, and write CSV, JSON and a page with pictures.

    Files of testA and testB with the same names count as pairs. The table also lists references that need no network: the
    input itself, the ground truth itself, and the ground truth of another image.

    Parameters
    ----------
    runs
        Folders of runs.
    out
        Folder for scores.csv, images.csv, scores.json and report.html.
    data
        Folder of the data set. Default: the one that each run was trained on.
    metrics
        A metric's name (`gantoolkit blocks metrics`) or a parameter of a metric, such as --metric psnr --metric
        fid.backbone=resnet18. May be repeated. Default: l1, psnr and ssim.
    split
        Name of the split: test means testA and testB, or the two halves of the images in test.
    images
        Use at most this many images of each domain, evenly spaced.
    generators
        The last ones, or the best ones according to the recipe's metric (training.evaluate_every).
    device
        cpu, cuda, cuda:1, or auto.
    """
    from gantoolkit.data.evaluation_images import EvaluationImages
    from gantoolkit.evaluation.pages import EvaluatedRun, write_page
    from gantoolkit.evaluation.references import score_all_references
    from gantoolkit.evaluation.scoring import DEFAULT_METRICS, choose_metrics, score_run
    from gantoolkit.evaluation.tables import write_scores
    from gantoolkit.run import Run

    if not runs:
        raise DataError("evaluate needs runs: gantoolkit evaluate runs/one runs/two --out scores")
    metric_blocks = choose_metrics(*parse_metrics(metrics or list(DEFAULT_METRICS)))
    runs_by_path = {path: Run.open(path, data=data) for path in dict.fromkeys(runs)}
    names = _short_names(list(runs_by_path))
    is_best = generators == "best"
    scored: list[EvaluatedRun] = []
    for path, run in runs_by_path.items():
        test_images = EvaluationImages.open(run.data, run.recipe.data, split=split).take(images).readable()
        print(f"evaluating {names[path]} …", file=sys.stderr, flush=True)
        scores = score_run(run, test_images, metric_blocks, name=names[path], best=is_best, device=device)
        scored.append(EvaluatedRun(scores, run, test_images, best=is_best))
    references = score_all_references(scored, metric_blocks, device=device)
    all_scores = [result.scores for result in scored] + references
    page = out / "report.html"
    try:
        files = write_scores(all_scores, out)
        write_page(page, scored, references, title="Scores", device=device)
    finally:
        print_scores(all_scores)  # after the files, and also if they cannot be written: scores take long to compute
    print("written: " + ", ".join(str(path) for path in [*files, page]))
    return report_files([result.scores for result in scored])


def report_files(results: "Sequence[RunScores]") -> int:
    """Print which files could not be read, how the others were read, and what is not used; return the exit code."""
    reasons = sorted({reason for scores in results for reason in scores.skipped})
    notes = dict.fromkeys(note for scores in results for note in scores.notes)
    for line in (*(f"skipped: {reason}" for reason in reasons), *(f"note: {note}" for note in notes)):
        print(line, file=sys.stderr)
    return INCOMPLETE if reasons or any(scores.passed_over for scores in results) else SUCCESS


def print_scores(results: "Sequence[RunScores]") -> None:
    """Print one table for each direction."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text  # names and units may have brackets, which are markup in a str

    from gantoolkit.evaluation.tables import describe_differences, directions_of, format_estimate, list_columns
    from gantoolkit.plugins import Direction

    console = Console(soft_wrap=True, highlight=False)
    for direction in map(Direction, directions_of(results)):
        rows = [scores for scores in results if direction in scores.directions]
        counts = sorted({scores.directions[direction].images for scores in rows})
        number = "–".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
        over = "1 image" if counts == [1] else f"95 % intervals over {number} images"
        title = f"{direction.source} → {direction.target}, {over}"
        table = Table(box=None, padding=(0, 2, 0, 0), title=title, title_justify="left", title_style="bold")
        columns = list_columns(results, direction)
        for heading in ("", *(["images"] if len(counts) > 1 else []), *map(str, columns)):
            table.add_column(Text(heading), no_wrap=True)
        for scores in rows:
            result = scores.directions[direction]
            cells = [str(result.images)] if len(counts) > 1 else []
            cells += [format_estimate(column.find(result.scores)) for column in columns]
            table.add_row(*map(Text, (scores.name, *cells)), style=None if scores.path else "italic")
        print_whole(table)
        notes = [note for scores in rows for note in scores.directions[direction].notes]
        for note in dict.fromkeys([*describe_differences(rows, direction), *notes]):
            console.print(f"  {note}", markup=False, style="dim")


def print_whole(table: "Table") -> None:
    """Print a table in full width: the terminal wraps long lines, where rich would cut them off."""
    from rich.console import Console

    width = Console(width=10_000).measure(table).maximum
    Console(soft_wrap=True, highlight=False, width=max(Console().width, width)).print(table)


def parse_metrics(texts: "Sequence[str]") -> tuple[list[str], dict[str, Any]]:
    """Parse words such as `psnr` and `fid.backbone=resnet18` into metric names, and parameters by dotted path."""
    names = dict.fromkeys(text.partition("=")[0].partition(".")[0] for text in texts)
    return list(names), parse_settings([text for text in texts if "=" in text])


def _short_names(runs: Sequence[Path]) -> dict[Path, str]:
    """The last part of each path, or as many parts as make the names unique."""
    for depth in range(1, 20):
        names = {path: "/".join(path.resolve().parts[-depth:]) for path in runs}
        if len(set(names.values())) == len(runs):
            return names
    return {path: str(path) for path in runs}

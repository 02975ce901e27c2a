"""`gantoolkit ablate`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter, validators

from gantoolkit.cli.exit_codes import exit_code_of
from gantoolkit.cli.train import parse_setting

if TYPE_CHECKING:
    from gantoolkit.evaluation.ablation import Row
    from gantoolkit.evaluation.scoring import RunScores

__all__ = ["ablate"]


def ablate(
    *recipes: str,
    data: Path,
    out: Path,
    seeds: Annotated[list[int] | None, Parameter(consume_multiple=True, negative=())] = None,
    settings: Annotated[list[str] | None, Parameter(name="--set", negative=())] = None,
    metrics: Annotated[list[str] | None, Parameter(name="--metric", negative=())] = None,
    images: Annotated[int | None, Parameter(validator=validators.Number(gte=1))] = None,
    device: str = "auto",
    workers: Annotated[int, Parameter(validator=validators.Number(gte=0))] = 0,
) -> int:
    """Train recipes with several seeds on one data set, evaluate them, and print the scores next to the paper's.

    The same command resumes where it was stopped. Another call with the same --out and other recipes or settings adds rows
    to the table. A recipe that learns one direction is trained once for each direction.

    Parameters
    ----------
    recipes
        Names of recipes, paths of .toml files, `ablations` (the paper's tables 4 and 5; the default), or `baselines`
        (tables 2 and 3).
    data
        Folder of the data set.
    out
        Folder for all runs and for table.md, table.csv and report.html.
    seeds
        Values of training.seed. Default: 0.
    settings
        Change a field of every recipe, such as --set data.crop_size=64. May be repeated.
    metrics
        As for `gantoolkit evaluate`: --metric label_maps --metric fcn_score.segmenter=FILE. Default: l1, psnr and ssim.
    images
        Evaluate at most this many test images, evenly spaced.
    device
        cpu, cuda, cuda:1, or auto.
    workers
        Number of processes that load images.
    """
    from gantoolkit.cli.evaluate import parse_metrics, report_skipped
    from gantoolkit.cli.progress import TrainingProgress
    from gantoolkit.data.evaluation_images import EvaluationImages
    from gantoolkit.evaluation.ablation import Ablation, plan_trials
    from gantoolkit.evaluation.pages import EvaluatedRun, write_page
    from gantoolkit.evaluation.scoring import DEFAULT_METRICS, choose_metrics, score_references
    from gantoolkit.evaluation.tables import directions_of
    from gantoolkit.run import Run

    changes = dict(map(parse_setting, settings or []))
    names, parameters = parse_metrics(metrics or list(DEFAULT_METRICS))
    chosen = choose_metrics(names, parameters)
    trials = plan_trials(recipes or ["ablations"], seeds or [0], changes, out)
    ablation = Ablation(out, data)
    all_scores: list[RunScores] = []
    for number, trial in enumerate(trials, start=1):
        print(f"{number} of {len(trials)}: {trial.name}, seed {trial.seed}, in {trial.path}", flush=True)
        end = ablation.train(trial, device=device, workers=workers, watch=TrainingProgress)
        if end is not None and end.reason != "finished":
            print("the same command continues from here")
            return exit_code_of(end.reason)
        all_scores.append(ablation.measure(trial, names, parameters, images=images, device=device))
    files = ablation.write()
    print_rows(ablation.rows())
    seed, runs = ablation.first_seed()
    scored: list[EvaluatedRun] = []
    for path, scores, count in runs:
        run = Run.open(path, data=data)
        scored.append(EvaluatedRun(scores, run, EvaluationImages.open(data, run.recipe.data).take(count).readable()))
    directions = directions_of([result.scores for result in scored])
    references = score_references(scored[0].images, directions, chosen)
    page = out / "report.html"
    write_page(page, scored, references, title=f"Ablation, seed {seed}", device=device)
    print("written: " + ", ".join(str(path) for path in [*files, page]))
    return report_skipped(all_scores)


def print_rows(rows: "list[Row]") -> None:
    """Print one table for each direction, and where the order of its rows differs from the paper's."""
    from rich.table import Table

    from gantoolkit.cli.evaluate import print_whole
    from gantoolkit.evaluation.ablation import describe_order, table_cells

    for direction in sorted({row.direction for row in rows}):
        direction_rows = [row for row in rows if row.direction == direction]
        heading, lines = table_cells(direction_rows)
        title = f"{direction[0]} → {direction[-1]}"
        table = Table(box=None, padding=(0, 2, 0, 0), title=title, title_justify="left")
        for name in heading:
            table.add_column(name, no_wrap=True)
        for line in lines:
            table.add_row(*line)
        print_whole(table)
        for note in dict.fromkeys(note for row in direction_rows for note in row.notes):
            print(f"† {note}")
        for sentence in describe_order(direction_rows):
            print(sentence)

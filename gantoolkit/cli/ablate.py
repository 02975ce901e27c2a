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
    """Train several recipes with several seeds on one data set, measure them, and print the paper's tables with them.

    The same command continues where it was stopped. Another call with the same --out, with other recipes or settings, adds
    to the table. A recipe that learns one direction is trained for both.

    Parameters
    ----------
    recipes
        Names of recipes, paths of .toml files, or `ablations` (the paper's tables 4 and 5, which is what none means) or
        `baselines` (tables 2 and 3).
    data
        Folder of the data set.
    out
        Folder for all runs and for table.md, table.csv and report.html.
    seeds
        Values of training.seed; 0 alone by default.
    settings
        Change a field of every recipe, as often as you like: --set data.crop_size=64.
    metrics
        As for `gantoolkit evaluate`: --metric label_maps --metric fcn_score.segmenter=FILE; l1, psnr and ssim by default.
    images
        Measure at most so many test images, spread evenly.
    device
        cpu, cuda, cuda:1, or auto.
    workers
        Processes that load images.
    """
    from gantoolkit.cli.evaluate import parse_metrics, report_skipped
    from gantoolkit.cli.progress import TrainingProgress
    from gantoolkit.data.evaluation_images import EvaluationImages
    from gantoolkit.evaluation.ablation import Ablation, plan_trials
    from gantoolkit.evaluation.pages import Scored, write_page
    from gantoolkit.evaluation.scoring import DEFAULT_METRICS, choose_metrics, score_references
    from gantoolkit.evaluation.tables import directions_of
    from gantoolkit.run import Run

    changes = dict(map(parse_setting, settings or []))
    names, parameters = parse_metrics(metrics or list(DEFAULT_METRICS))
    chosen = choose_metrics(names, parameters)
    trials = plan_trials(recipes or ["ablations"], seeds or [0], changes, out)
    ablation = Ablation(out, data)
    measured: list[RunScores] = []
    for number, trial in enumerate(trials, start=1):
        print(f"{number} of {len(trials)}: {trial.name}, seed {trial.seed}, in {trial.path}", flush=True)
        end = ablation.train(trial, device=device, workers=workers, watch=TrainingProgress)
        if end is not None and end.reason != "finished":
            print("the same command continues from here")
            return exit_code_of(end.reason)
        measured.append(ablation.measure(trial, names, parameters, images=images, device=device))
    files = ablation.write()
    print_rows(ablation.rows())
    seed, shown = ablation.first_seed()
    scored: list[Scored] = []
    for path, scores, count in shown:
        run = Run.open(path, data=data)
        scored.append(Scored(scores, run, EvaluationImages.open(data, run.recipe.data).take(count).readable()))
    directions = directions_of([each.scores for each in scored])
    references = score_references(scored[0].images, directions, chosen)
    page = out / "report.html"
    write_page(page, scored, references, title=f"Ablation, seed {seed}", device=device)
    print("written: " + ", ".join(str(path) for path in [*files, page]))
    return report_skipped(measured)


def print_rows(rows: "list[Row]") -> None:
    """The table of each direction, and where its order is not that of the paper."""
    from rich.table import Table

    from gantoolkit.cli.evaluate import print_whole
    from gantoolkit.evaluation.ablation import describe_order, table_cells

    for way in sorted({row.direction for row in rows}):
        here = [row for row in rows if row.direction == way]
        heading, lines = table_cells(here)
        table = Table(box=None, padding=(0, 2, 0, 0), title=f"{way[0]} → {way[-1]}", title_justify="left")
        for name in heading:
            table.add_column(name, no_wrap=True)
        for line in lines:
            table.add_row(*line)
        print_whole(table)
        for note in dict.fromkeys(note for row in here for note in row.notes):
            print(f"† {note}")
        for sentence in describe_order(here):
            print(sentence)

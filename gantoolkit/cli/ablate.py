"""`gantoolkit ablate`."""

import contextlib
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter, validators

from gantoolkit.cli.exit_codes import INCOMPLETE, SUCCESS, exit_code_of
from gantoolkit.cli.settings import parse_settings
from gantoolkit.errors import DataError

if TYPE_CHECKING:
    from rich.progress import TaskID

    from gantoolkit.evaluation.ablation import Ablation, Design, Row, Trial
    from gantoolkit.evaluation.ablation.forecast import Forecast
    from gantoolkit.evaluation.ablation.results import MetricChoice
    from gantoolkit.evaluation.ablation.turns import Outcome, Turn
    from gantoolkit.evaluation.scoring import RunScores

__all__ = ["ablate"]

_TRAINING_SHARE = 0.8
"""The share of `--minutes` that is spent training; the rest is for the start, the scores and the pictures."""
_REFRESH_S, _LINE_S = 2.0, 30.0
"""Seconds between two updates of the progress on a terminal and elsewhere."""


def ablate(
    *recipes: str,
    data: Path,
    out: Path,
    design: str | None = None,
    seeds: Annotated[list[int] | None, Parameter(consume_multiple=True, negative=())] = None,
    settings: Annotated[list[str] | None, Parameter(name="--set", negative=())] = None,
    metrics: Annotated[list[str] | None, Parameter(name="--metric", negative=())] = None,
    images: Annotated[int | None, Parameter(validator=validators.Number(gte=1))] = None,
    minutes: Annotated[float | None, Parameter(validator=validators.Number(gt=0))] = None,
    jobs: int | Literal["auto"] = "auto",
    plan: Annotated[bool, Parameter(negative=())] = False,
    mps: bool = True,
    device: str = "auto",
    workers: Annotated[int, Parameter(validator=validators.Number(gte=0))] = 0,
) -> int:
    """Train recipes with several seeds on one data set, evaluate them, and print the scores next to the paper's.

    The same command resumes where it was stopped. Another call with the same --out and other recipes or settings adds rows
    to the table. A recipe that learns one direction is trained once for each direction. A row that fails does not stop the
    others.

    Parameters
    ----------
    recipes
        Names of recipes, paths of .toml files, `ablations` (the paper's tables 4 and 5; the default), or `baselines`
        (tables 2 and 3). With --design, they select rows of it.
    data
        Folder of the data set.
    out
        Folder for all runs and for table.md, table.csv, table.json and report.html.
    design
        Rows with their settings, and metrics: `cityscapes` (tables 2 to 5 at 128×128), or the path of a .toml file.
    seeds
        Values of training.seed. Default: 0.
    settings
        Change a field of every recipe, such as --set data.crop_size=64. May be repeated.
    metrics
        As for `gantoolkit evaluate`: --metric label_maps --metric fcn_score.segmenter=FILE. Default: those of the design, or
        else l1, psnr and ssim.
    images
        Evaluate at most this many test images, evenly spaced.
    minutes
        Train for four fifths of this time, in turns if not all runs fit at once; then score what there is. Call again to
        continue. Default: no limit.
    jobs
        Number of runs that train at once, each in its own process. `auto`: 1 on a CPU; on CUDA as many as fit into memory.
    plan
        Only print the plan: measure a step of each recipe, and predict memory and time.
    mps
        Use CUDA's Multi-Process Service, if it is installed, so that several runs share a device well.
    device
        cpu, cuda (all CUDA devices), cuda:1, or auto.
    workers
        Number of processes that load images, for each run.
    """
    import torch

    from gantoolkit.cli.evaluate import report_files
    from gantoolkit.evaluation.ablation import Ablation, find_design, plan_trials, select_rows
    from gantoolkit.evaluation.ablation.forecast import choose_jobs, forecast, refresh
    from gantoolkit.evaluation.ablation.processes import list_devices, train_trials
    from gantoolkit.evaluation.ablation.trials import read_step
    from gantoolkit.run import Run
    from gantoolkit.runs import RunFolder
    from gantoolkit.runtime.mps import multi_process_service
    from gantoolkit.training.interrupts import Interrupts

    start = time.monotonic()
    if jobs != "auto" and jobs < 1:  # in a union, a parameter's validator is not called
        raise DataError(f"--jobs {jobs}: must be at least 1")
    chosen_design = None if design is None else find_design(design, data)
    choice = choose_measurement(metrics, images, chosen_design)
    rows = select_rows(recipes, chosen_design)
    trials = plan_trials(rows, seeds or [0], parse_settings(settings), out, chosen_design)
    devices = list_devices(device)
    forecasts = forecast(trials, data, torch.device(devices[0]), measures=plan)
    count = min(len(trials), choose_jobs(forecasts, devices) if jobs == "auto" else jobs)
    print_plan(forecasts, devices, count, minutes)
    if plan:
        return SUCCESS
    for trial in trials:  # before the first is trained: a folder may hold another run
        Run.start(trial.recipe, data, trial.path)
    ablation = Ablation(out, data)
    deadline = None if minutes is None else start + 60 * _TRAINING_SHARE * minutes
    shares_device = count > len(devices) and devices[0] != "cpu"
    with multi_process_service(mps and shares_device) as sharing:
        if shares_device:
            print(f"{count} runs at once: {sharing}")
        with Interrupts() as interrupts, TurnsProgress(forecasts, deadline) as progress:
            outcomes = train_trials(
                forecasts,
                data,
                devices,
                jobs=count,
                workers=workers,
                deadline=deadline,
                is_interrupted=lambda: interrupts.received is not None,
                watch=progress,
            )
        failures = report_failures(outcomes)
        if interrupts.received is not None:
            if ablation.rows():
                ablation.write()
            print("the same command continues from here")
            return exit_code_of(interrupts.received.name)
        started = [trial for trial in trials if read_step(RunFolder(trial.path))]
        all_scores = score_trials(ablation, started, choice, devices, count)
    write_results(ablation, choice, devices[0])
    print_rest(refresh(forecasts), count, minutes)
    is_complete = not failures and len(all_scores) == len(started)
    return report_files(all_scores) if is_complete else INCOMPLETE


def choose_measurement(metrics: list[str] | None, images: int | None, design: "Design | None") -> "MetricChoice":
    """The metrics and the number of images of the command line, or else of the design, or else the default ones."""
    from gantoolkit.cli.evaluate import parse_metrics
    from gantoolkit.evaluation.ablation.results import MetricChoice
    from gantoolkit.evaluation.scoring import DEFAULT_METRICS

    words = metrics or (list(design.metrics) if design is not None else []) or list(DEFAULT_METRICS)
    names, parameters = parse_metrics(words)
    if images is None and design is not None:
        images = design.images
    return MetricChoice(names, parameters, images)


def print_plan(forecasts: "Sequence[Forecast]", devices: Sequence[str], jobs: int, minutes: float | None) -> None:
    """Print steps, memory and time of each trial, and how many train at once."""
    import torch
    from rich.table import Table
    from rich.text import Text

    from gantoolkit.cli.bench import format_seconds
    from gantoolkit.cli.evaluate import print_whole
    from gantoolkit.runtime.memory import available_memory, format_bytes

    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("", "steps done", "of", "memory", "a step", "left"):
        table.add_column(heading, no_wrap=True)
    for each in forecasts:
        table.add_row(
            Text(str(each.trial)),
            f"{each.step:,}",
            f"{each.steps:,}",
            "not known" if each.needed_bytes is None else format_bytes(each.needed_bytes),
            "not measured" if each.seconds_per_step is None else format_seconds(each.seconds_per_step),
            "not known" if each.seconds is None else _format_minutes(each.seconds),
        )
    print_whole(table)
    free = [(name, available_memory(torch.device(name))) for name in devices]
    memory = ", ".join(
        f"{name} has {'an unknown amount' if size is None else format_bytes(size)} free" for name, size in free
    )
    print(f"{jobs} of {len(forecasts)} runs at once; {memory}")
    print_rest(forecasts, jobs, minutes)


def print_rest(forecasts: "Sequence[Forecast]", jobs: int, minutes: float | None) -> None:
    """Print how much is left, as far as it is known."""
    from gantoolkit.evaluation.ablation.forecast import count_calls

    unfinished = [each for each in forecasts if not each.is_finished]
    if not unfinished:
        return
    print(f"{len(unfinished)} of {len(forecasts)} runs are not finished; the same command continues from here")
    if minutes is None:
        return
    calls = count_calls(unfinished, jobs, 60 * _TRAINING_SHARE * minutes)
    if calls is None:
        print(f"how many calls of {minutes:g} minutes they need is not known yet")
    else:
        calls_text = f"{calls} call{'s' if calls > 1 else ''}"
        print(f"at the measured speed they need about {calls_text} of {minutes:g} minutes")


def report_failures(outcomes: "Mapping[Trial, Outcome]") -> int:
    """Print why trials failed, and return their number."""
    from gantoolkit.evaluation.ablation.processes import LOG, read_failure

    failed = [trial for trial, outcome in outcomes.items() if outcome == "failed"]
    for trial in failed:
        print(f"failed: {trial}: {read_failure(trial)} (all output: {trial.path / LOG})", file=sys.stderr)
    return len(failed)


def score_trials(
    ablation: "Ablation", trials: "Sequence[Trial]", choice: "MetricChoice", devices: Sequence[str], jobs: int
) -> "list[RunScores]":
    """Score trials that have saved generators, and print which could be scored."""
    from gantoolkit.evaluation.ablation.measuring import measure_trials
    from gantoolkit.evaluation.ablation.processes import threads_of_job

    def report(trial: "Trial", problem: str) -> None:
        if problem:
            print(f"not scored: {trial}: {problem}", file=sys.stderr, flush=True)
        else:
            print(f"scored {trial}", flush=True)

    threads = threads_of_job(jobs)
    return measure_trials(ablation, trials, choice, devices=devices, jobs=jobs, threads=threads, report=report)


def write_results(ablation: "Ablation", choice: "MetricChoice", device: str) -> None:
    """Write the tables and the page with pictures of the first seed, then print the tables, even if writing fails."""
    rows = ablation.rows()
    if not rows:
        print("no run has a score yet")
        return
    try:
        files = ablation.write()
        files.append(write_pictures(ablation, rows, choice, device))
    finally:
        print_rows(rows)
    print("written: " + ", ".join(map(str, files)))


def write_pictures(ablation: "Ablation", rows: "list[Row]", choice: "MetricChoice", device: str) -> Path:
    """Write the page with pictures of the first seed."""
    from gantoolkit.data.evaluation_images import EvaluationImages
    from gantoolkit.evaluation.ablation.rows import describe_rows
    from gantoolkit.evaluation.pages import EvaluatedRun, write_page
    from gantoolkit.evaluation.references import score_all_references
    from gantoolkit.evaluation.scoring import choose_metrics
    from gantoolkit.run import Run

    seed, runs = ablation.first_seed()
    scored: list[EvaluatedRun] = []
    for path, scores, count in runs:
        run = Run.open(path, data=ablation.data)
        images = EvaluationImages.open(ablation.data, run.recipe.data).take(count).readable()
        scored.append(EvaluatedRun(scores, run, images))
    metrics = choose_metrics(choice.names, choice.settings)
    references = score_all_references(scored, metrics, device=device)
    page = ablation.out / "report.html"
    remarks = describe_rows(rows, seed)
    write_page(page, scored, references, title=f"Ablation, seed {seed}", remarks=remarks, device=device)
    return page


class TurnsProgress:
    """Shows the steps of running trials: a bar for each on a terminal, otherwise a line every half minute."""

    def __init__(self, forecasts: "Sequence[Forecast]", deadline: float | None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self.steps = {each.trial: each.steps for each in forecasts}
        self.deadline = deadline
        console = Console(soft_wrap=True, highlight=False)
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        self.bars = Progress(*columns, console=console, disable=not console.is_terminal)
        self.is_terminal = console.is_terminal
        self.tasks: dict[Trial, TaskID] = {}
        self.turns: list[Turn] = []
        self.updated_at = time.monotonic()

    def __enter__(self) -> "TurnsProgress":
        self.bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bars.stop()

    def __call__(self, running: "Sequence[Turn]") -> None:
        with contextlib.suppress(OSError):  # training goes on if the output is no longer writable
            self.show(running)

    def show(self, running: "Sequence[Turn]") -> None:
        for turn in running:
            if turn not in self.turns:
                self.turns.append(turn)
                print(f"training {turn.trial}, in {turn.trial.path}", flush=True)
        now = time.monotonic()
        if now - self.updated_at < (_REFRESH_S if self.is_terminal else _LINE_S):
            return
        self.updated_at = now
        steps = {turn.trial: _read_logged_step(turn.trial.path) for turn in running}
        if self.is_terminal:
            for trial, step in steps.items():
                if trial not in self.tasks:
                    self.tasks[trial] = self.bars.add_task(str(trial), total=self.steps[trial])
                self.bars.update(self.tasks[trial], completed=step)
        else:
            left = "" if self.deadline is None else f", {max(0.0, self.deadline - now):.0f} s left"
            states = "; ".join(f"{trial}: {step:,} of {self.steps[trial]:,}" for trial, step in steps.items())
            print(f"{len(steps)} runs train{left}: {states}", flush=True)


def _read_logged_step(path: Path) -> int:
    from gantoolkit.runs import RunFolder
    from gantoolkit.runs.log import read_log

    rows = read_log(RunFolder(path).log)
    return rows[-1]["step"] if rows else 0


def _format_minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def print_rows(rows: "list[Row]") -> None:
    """Print one table for each direction, and where the order of its rows differs from the paper's."""
    from rich.table import Table
    from rich.text import Text

    from gantoolkit.cli.evaluate import print_whole
    from gantoolkit.evaluation.ablation import describe_order, table_cells

    for direction in sorted({row.direction for row in rows}):
        direction_rows = [row for row in rows if row.direction == direction]
        heading, lines = table_cells(direction_rows)
        title = f"{direction[0]} → {direction[-1]}"
        table = Table(box=None, padding=(0, 2, 0, 0), title=title, title_justify="left")
        for name in heading:
            table.add_column(Text(name), no_wrap=True)
        for line in lines:
            table.add_row(*map(Text, line))
        print_whole(table)
        for note in dict.fromkeys(note for row in direction_rows for note in row.notes):
            print(f"† {note}")
        for sentence in describe_order(direction_rows):
            print(sentence)

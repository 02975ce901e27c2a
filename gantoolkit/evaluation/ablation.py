"""Many recipes on one data set, several seeds each, and the table that they make beside the paper's."""

import itertools
import statistics
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gantoolkit.data import open_dataset
from gantoolkit.data.evaluation_images import EvaluationImages
from gantoolkit.errors import CheckpointError, DataError
from gantoolkit.evaluation.scoring import RunScores, choose_metrics, score_run
from gantoolkit.evaluation.tables import format_number, read_scores, write_scores
from gantoolkit.files.text import write_csv, write_json, write_text
from gantoolkit.recipes import Recipe, find_recipe
from gantoolkit.run import Run
from gantoolkit.training import Callback, RunEnded

__all__ = ["SETS", "Ablation", "Row", "Trial", "expand_names", "plan_trials"]

SETS = {
    "ablations": (
        "ablations/cycle_alone",
        "ablations/gan_alone",
        "ablations/gan_forward",
        "ablations/gan_backward",
        "cyclegan",
    ),
    "baselines": ("cogan", "bigan", "simgan", "feature_gan", "cyclegan", "pix2pix"),
}
"""The rows of the paper's tables by a name of their own: tables 4 and 5, and tables 2 and 3 (Zhu et al. 2017)."""

_FIGURES = ("pixel_accuracy", "class_accuracy", "class_iou")
_SCORES = "scores.json"


@dataclass(frozen=True)
class Trial:
    """One run to be trained and measured.

    Args:
        name: Of its recipe, as it was asked for.
        seed: `training.seed`.
        recipe: With all changes.
        path: The run's folder.
    """

    name: str
    seed: int
    recipe: Recipe
    path: Path


@dataclass(frozen=True)
class Row:
    """A line of the table, one direction of one recipe.

    Args:
        name: The recipe.
        direction: `A2B` or `B2A`.
        figures: By name, one value for each seed that was measured by it.
        paper: The paper's figures, where it has this row.
        notes: In what these runs differ from the paper's, as far as their recipes and data tell.
    """

    name: str
    direction: str
    figures: Mapping[str, Sequence[float]]
    paper: Mapping[str, float]
    notes: tuple[str, ...]

    def mean(self, figure: str) -> float:
        """The mean over seeds."""
        return statistics.fmean(self.figures[figure])


def expand_names(names: Sequence[str]) -> list[str]:
    """Recipes by name, those of `SETS` in place of a set's name, each once."""
    return list(dict.fromkeys(name for given in names for name in SETS.get(given, (given,))))


def plan_trials(names: Sequence[str], seeds: Sequence[int], changes: Mapping[str, Any], out: Path) -> list[Trial]:
    """The runs to make: every recipe with every seed; one that learns one direction is made for both.

    Raises:
        GantoolkitError: When a recipe does not exist, or a change does not fit one of them.
    """
    trials: list[Trial] = []
    for seed, name in itertools.product(seeds, expand_names(names)):
        short = Path(name).stem if name.endswith(".toml") else name
        given = {**changes, "training.seed": seed}
        recipe = find_recipe(name, given).check()
        # Such a system has a parameter that says which way.
        ways = ("A2B", "B2A") if "direction" in recipe.system.parameters and "direction" not in changes else ("",)
        for way in ways:
            turned = find_recipe(name, {**given, **({"direction": way} if way else {})})
            trials.append(Trial(short, seed, turned, out / short / "-".join(filter(None, (f"seed-{seed}", way)))))
    return trials


class Ablation:
    """Trials of one data set, and what is known of them.

    Args:
        out: Folder of all runs, with the table.
        data: Folder of the data set.
    """

    def __init__(self, out: Path, data: Path) -> None:
        self.out, self.data = out, data

    def train(
        self,
        trial: Trial,
        *,
        device: str | None,
        workers: int,
        watch: Callable[[Run], AbstractContextManager[Callback]],
    ) -> RunEnded | None:
        """Train a trial to its end, or continue it; None where it had been finished before.

        Raises:
            GantoolkitError: As training does.
        """
        run = Run.start(trial.recipe, self.data, trial.path)
        if self._is_finished(run):
            return None
        with watch(run) as callback:
            return run.train(device=device, workers=workers, callbacks=[callback])

    def measure(
        self, trial: Trial, names: Sequence[str], settings: Mapping[str, Any], *, images: int | None, device: str | None
    ) -> RunScores:
        """A trial's scores: those that were written before, if they are of the same metrics, images and step.

        Raises:
            GantoolkitError: As measuring does.
        """
        run = Run.open(trial.path, data=self.data)
        wanted = {"metrics": list(names), "settings": dict(settings), "images": images, "step": self._step(run)}
        folder = trial.path / "scores"
        about = folder / "about.json"
        if about.is_file() and (folder / _SCORES).is_file() and _read_json(about)["asked"] == wanted:
            return read_scores(folder / _SCORES)[0]
        measured = EvaluationImages.open(self.data, run.recipe.data).take(images).readable()
        name = f"{trial.name}, seed {trial.seed}"
        scores = score_run(run, measured, choose_metrics(names, settings), name=name, device=device)
        write_scores([scores], folder)
        training = open_dataset(self.data)
        setting = {
            "images": max(map(len, training.images.values())),
            "crop_size": run.recipe.data.crop_size,
            "epochs": run.recipe.training.epochs,
            "step": scores.step,
        }
        write_json(about, {"recipe": trial.name, "seed": trial.seed, "asked": wanted, "setting": setting})
        return scores

    def rows(self) -> list[Row]:
        """The table: all trials below the folder that have been measured, also in earlier calls."""
        paper = _read_paper()
        found: dict[tuple[str, str], list[RunScores]] = {}
        settings: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for about, _, scores in self._measured():
            for way in scores.directions:
                found.setdefault((way, about["recipe"]), []).append(scores)
                settings.setdefault((way, about["recipe"]), []).append(
                    {**about["setting"], "measured": scores.directions[way].images}
                )
        rows: list[Row] = []
        for way, name in sorted(found, key=lambda key: (key[0], *_place(key[1]))):
            scored = [scores.directions[way] for scores in found[way, name]]
            figures: dict[str, list[float]] = {}  # seeds may have been measured by different metrics
            for figure, measured in (pair for each in scored for pair in each.figures.items()):
                figures.setdefault(figure, []).append(measured.value)
            if not figures:  # the metrics that were asked for say nothing of this direction
                continue
            theirs: dict[str, float] = (
                dict(zip(_FIGURES, paper[way].get(name, ()), strict=False)) if set(_FIGURES) <= figures.keys() else {}
            )
            notes = _differences(settings[way, name], paper["setting"]) if theirs else ()
            rows.append(Row(name, way, figures, theirs, notes))
        return rows

    def first_seed(self) -> tuple[int, list[tuple[Path, RunScores, int | None]]]:
        """The lowest seed, and all its runs that have been measured, in the table's order: folder, scores, images asked for.

        Raises:
            DataError: When nothing has been measured.
        """
        measured = sorted(self._measured(), key=lambda each: _place(each[0]["recipe"]))
        if not measured:
            raise DataError(f"{self.out}: holds no run that has been measured")
        seed = min(about["seed"] for about, _, _ in measured)
        return seed, [
            (path, scores, about["asked"]["images"]) for about, path, scores in measured if about["seed"] == seed
        ]

    def write(self) -> list[Path]:
        """Write the table as Markdown and as CSV.

        Raises:
            DataError: When it cannot be written, or nothing has been measured.
        """
        rows = self.rows()
        if not rows:
            raise DataError(f"{self.out}: holds no run that has been measured")
        files = [self.out / "table.md", self.out / "table.csv"]
        plain = [
            {
                "direction": row.direction,
                "recipe": row.name,
                "figure": figure,
                "mean": row.mean(figure),
                "lowest": min(values),
                "highest": max(values),
                "seeds": len(values),
                "paper": row.paper.get(figure),
                "differs": "; ".join(row.notes),
            }
            for row in rows
            for figure, values in row.figures.items()
        ]
        write_csv(files[1], plain)
        write_text(files[0], format_markdown(rows))
        return files

    def _measured(self) -> Iterator[tuple[dict[str, Any], Path, RunScores]]:
        """What is known of each run below the folder that has been measured, its own folder, and its scores."""
        for about in sorted(self.out.rglob("scores/about.json")):
            for scores in read_scores(about.parent / _SCORES):
                yield _read_json(about), about.parent.parent, scores

    def _step(self, run: Run) -> int:
        checkpoint = run.folder.newest_checkpoint(run.recipe)
        if checkpoint is None:
            raise CheckpointError(f"{run.path}: nothing has been saved yet; train first")
        return checkpoint.progress["step"]

    def _is_finished(self, run: Run) -> bool:
        checkpoint = run.folder.newest_checkpoint(run.recipe)
        if checkpoint is None:
            return False
        dataset = open_dataset(self.data)
        per_epoch = -(-max(map(len, dataset.images.values())) // run.recipe.training.batch_size)
        return checkpoint.progress["step"] >= per_epoch * run.recipe.training.epochs


def format_markdown(rows: Sequence[Row]) -> str:
    """The table of each direction in Markdown, with what differs from the paper, and where the order does."""
    parts: list[str] = []
    for way in sorted({row.direction for row in rows}):
        here = [row for row in rows if row.direction == way]
        parts.append(f"### {way[0]} → {way[-1]}\n")
        heading, lines = table_cells(here)
        parts.append("| " + " | ".join(heading) + " |\n|" + "---|" * len(heading))
        parts += ["| " + " | ".join(line) + " |" for line in lines]
        parts.append("")
        notes = dict.fromkeys(note for row in here for note in row.notes)
        parts += [f"† {note}" for note in notes]
        parts += ["", *(f"- {sentence}" for sentence in describe_order(here)), ""]
    return "\n".join(parts).strip() + "\n"


def table_cells(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Headings and cells: the three figures of a segmentation in one cell, as the paper prints them, others by themselves."""
    names = list(dict.fromkeys(name for row in rows for name in row.figures))
    joined = all(name in names for name in _FIGURES)
    singles = [name for name in names if not (joined and name in _FIGURES)]
    triple = ["per-pixel acc. / per-class acc. / class IoU", "lowest … highest seed", "paper"] if joined else []
    heading = ["", "seeds", *triple, *singles]
    lines: list[list[str]] = []
    for row in rows:
        counts = sorted({len(values) for values in row.figures.values()})
        cells = [row.name, "–".join(map(str, dict.fromkeys((counts[0], counts[-1]))))]
        if joined:
            there = all(name in row.figures for name in _FIGURES)
            cells.append(" / ".join(f"{row.mean(name):.2f}" for name in _FIGURES) if there else "")
            ranges = (
                [f"{min(row.figures[name]):.2f}…{max(row.figures[name]):.2f}" for name in _FIGURES] if there else []
            )
            cells.append(" / ".join(ranges) if there and len(row.figures[_FIGURES[0]]) > 1 else "")
            mark = " †" if row.notes else ""
            cells.append(" / ".join(f"{row.paper[name]:.2f}" for name in _FIGURES) + mark if row.paper else "")
        cells += [format_number(row.mean(name)) if name in row.figures else "" for name in singles]
        lines.append(cells)
    return heading, lines


def describe_order(rows: Sequence[Row]) -> Iterator[str]:
    """Where two recipes of one of the paper's tables come in the other order than there."""
    for (name, members), figure in itertools.product(SETS.items(), _FIGURES):
        known = [row for row in rows if row.paper and row.name in members]
        swapped = [
            f"{better.name} over {worse.name}"
            for better, worse in itertools.permutations(known, 2)
            if better.mean(figure) > worse.mean(figure) and better.paper[figure] < worse.paper[figure]
        ]
        pairs = len(known) * (len(known) - 1) // 2
        if pairs and not swapped:
            yield f"{name}, {figure}: the order of all {pairs} pairs is that of the paper, as far as that separates them"
        elif pairs:
            yield (
                f"{name}, {figure}: {len(swapped)} of {pairs} pairs are in the other order than in the paper: "
                f"{', '.join(swapped)}"
            )


def _differences(settings: Sequence[Mapping[str, Any]], paper: Mapping[str, Any]) -> tuple[str, ...]:
    kinds = dict.fromkeys((each["images"], each["crop_size"], each["step"], each["measured"]) for each in settings)
    steps = paper["images"] * paper["epochs"]
    theirs = (paper["images"], paper["crop_size"], steps)
    return tuple(
        f"{images} training images at {size}×{size}, {done} steps, {measured} test images; the paper: {paper['images']} at "
        f"{paper['crop_size']}×{paper['crop_size']}, {paper['epochs']} epochs, which are {steps} steps of one image"
        for images, size, done, measured in kinds
        if (images, size, done) != theirs
    )


def _place(name: str) -> tuple[int, str]:
    """The order of the paper's tables; after them by name."""
    order = list(dict.fromkeys(itertools.chain(*SETS.values())))
    return (order.index(name) if name in order else len(order), name)


def _read_paper() -> dict[str, Any]:
    return tomllib.loads((Path(__file__).parent / "paper.toml").read_text(encoding="utf-8"))


def _read_json(path: Path) -> dict[str, Any]:
    import json

    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); remove its folder to measure again") from error

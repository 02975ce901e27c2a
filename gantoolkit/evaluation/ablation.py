"""Train and score several recipes with several seeds on one data set, and compare the results with the paper's tables."""

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
from gantoolkit.errors import DataError
from gantoolkit.evaluation.scoring import DirectionScores, RunScores, choose_metrics, score_run
from gantoolkit.evaluation.tables import format_number, read_scores, write_scores
from gantoolkit.files.text import write_csv, write_json, write_text
from gantoolkit.recipes import Recipe, find_recipe
from gantoolkit.run import Run
from gantoolkit.runs import read_generator_header
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
"""Named sets of recipes: `ablations` for the rows of tables 4 and 5, `baselines` for tables 2 and 3 (Zhu et al. 2017)."""

_SEGMENTATION = ("pixel_accuracy", "class_accuracy", "class_iou")
"""The scores in the paper's tables."""
_SCORES = "scores.json"


@dataclass(frozen=True)
class Trial:
    """One run of an ablation.

    Args:
        name: The name of the recipe on the command line.
        seed: `training.seed`.
        recipe: The recipe with all changes.
        path: The run's folder.
    """

    name: str
    seed: int
    recipe: Recipe
    path: Path


@dataclass(frozen=True)
class Row:
    """A row of the table: one direction of one recipe.

    Args:
        name: The recipe.
        direction: `A2B` or `B2A`.
        scores: Scores by name, with one value for each evaluated seed.
        paper: The paper's scores, if it has this row.
        notes: Known differences from the paper in recipe and data.
    """

    name: str
    direction: str
    scores: Mapping[str, Sequence[float]]
    paper: Mapping[str, float]
    notes: tuple[str, ...]

    def mean(self, score: str) -> float:
        """The mean of a score over seeds."""
        return statistics.fmean(self.scores[score])


def expand_names(names: Sequence[str]) -> list[str]:
    """Replace the names of `SETS` by their recipes and remove duplicates."""
    return list(dict.fromkeys(recipe for name in names for recipe in SETS.get(name, (name,))))


def plan_trials(names: Sequence[str], seeds: Sequence[int], changes: Mapping[str, Any], out: Path) -> list[Trial]:
    """List the runs of an ablation: every recipe with every seed, and both directions of a one-directional recipe.

    Raises:
        GantoolkitError: If a recipe does not exist, or a change does not fit one of them.
    """
    trials: list[Trial] = []
    for seed, name in itertools.product(seeds, expand_names(names)):
        short = Path(name).stem if name.endswith(".toml") else name
        settings = {**changes, "training.seed": seed}
        recipe = find_recipe(name, settings).check()
        # A one-directional system has a parameter `direction`.
        if "direction" in recipe.system.parameters and "direction" not in changes:
            for direction in ("A2B", "B2A"):
                directed = find_recipe(name, {**settings, "direction": direction})
                trials.append(Trial(short, seed, directed, out / short / f"seed-{seed}-{direction}"))
        else:
            trials.append(Trial(short, seed, find_recipe(name, settings), out / short / f"seed-{seed}"))
    return trials


class Ablation:
    """The trials of one data set and their scores.

    Args:
        out: Folder for all runs and the table.
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
        """Train a trial to its end, resuming it if it exists. Returns None if it was already finished.

        Args:
            trial: The trial.
            device: As in `Run.train`.
            workers: As in `Run.train`.
            watch: Creates the context of a callback that follows the training.

        Raises:
            GantoolkitError: If training fails.
        """
        run = Run.start(trial.recipe, self.data, trial.path)
        if self._is_finished(run):
            return None
        with watch(run) as callback:
            return run.train(device=device, workers=workers, callbacks=[callback])

    def measure(
        self, trial: Trial, names: Sequence[str], settings: Mapping[str, Any], *, images: int | None, device: str | None
    ) -> RunScores:
        """Score a trial, or read its scores from disk if they are of the same metrics, images and step.

        Raises:
            GantoolkitError: If the evaluation fails.
        """
        run = Run.open(trial.path, data=self.data)
        request = {"metrics": list(names), "settings": dict(settings), "images": images, "step": self._step(run)}
        folder = trial.path / "scores"
        about = folder / "about.json"
        if about.is_file() and (folder / _SCORES).is_file() and _read_json(about)["request"] == request:
            return read_scores(folder / _SCORES)[0]
        test_images = EvaluationImages.open(self.data, run.recipe.data).take(images).readable()
        name = f"{trial.name}, seed {trial.seed}"
        scores = score_run(run, test_images, choose_metrics(names, settings), name=name, device=device)
        write_scores([scores], folder)
        training = open_dataset(self.data)
        setting = {
            "images": max(map(len, training.images.values())),
            "crop_size": run.recipe.data.crop_size,
            "epochs": run.recipe.training.epochs,
            "step": scores.step,
        }
        write_json(about, {"recipe": trial.name, "seed": trial.seed, "request": request, "setting": setting})
        return scores

    def rows(self) -> list[Row]:
        """The rows of the table: all evaluated trials in the folder, including those of earlier calls."""
        paper = _read_paper()
        results: dict[tuple[str, str], list[DirectionScores]] = {}
        settings: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for about, _, run_scores in self._evaluated():
            for direction, result in run_scores.directions.items():
                key = (direction, about["recipe"])
                results.setdefault(key, []).append(result)
                settings.setdefault(key, []).append({**about["setting"], "test_images": result.images})
        rows: list[Row] = []
        for direction, name in sorted(results, key=lambda key: (key[0], *_sort_key(key[1]))):
            scores: dict[str, list[float]] = {}  # seeds may have been evaluated with different metrics
            for score, estimate in (item for result in results[direction, name] for item in result.scores.items()):
                scores.setdefault(score, []).append(estimate.value)
            if not scores:  # none of the metrics applies to this direction
                continue
            published: dict[str, float] = {}
            if set(_SEGMENTATION) <= scores.keys():
                published = dict(zip(_SEGMENTATION, paper[direction].get(name, ()), strict=False))
            notes = _differences(settings[direction, name], paper["setting"]) if published else ()
            rows.append(Row(name, direction, scores, published, notes))
        return rows

    def first_seed(self) -> tuple[int, list[tuple[Path, RunScores, int | None]]]:
        """The lowest seed and its evaluated runs in the order of the table: folder, scores and requested number of images.

        Raises:
            DataError: If no run has been evaluated.
        """
        evaluated = sorted(self._evaluated(), key=lambda entry: _sort_key(entry[0]["recipe"]))
        if not evaluated:
            raise DataError(f"{self.out}: contains no evaluated run")
        seed = min(about["seed"] for about, _, _ in evaluated)
        return seed, [
            (path, scores, about["request"]["images"]) for about, path, scores in evaluated if about["seed"] == seed
        ]

    def write(self) -> list[Path]:
        """Write the table as Markdown and as CSV.

        Raises:
            DataError: If it cannot be written, or no run has been evaluated.
        """
        rows = self.rows()
        if not rows:
            raise DataError(f"{self.out}: contains no evaluated run")
        files = [self.out / "table.md", self.out / "table.csv"]
        plain = [
            {
                "direction": row.direction,
                "recipe": row.name,
                "score": score,
                "mean": row.mean(score),
                "lowest": min(values),
                "highest": max(values),
                "seeds": len(values),
                "paper": row.paper.get(score),
                "differs": "; ".join(row.notes),
            }
            for row in rows
            for score, values in row.scores.items()
        ]
        write_csv(files[1], plain)
        write_text(files[0], format_markdown(rows))
        return files

    def _evaluated(self) -> Iterator[tuple[dict[str, Any], Path, RunScores]]:
        """The metadata, folder and scores of each evaluated run."""
        for about in sorted(self.out.rglob("scores/about.json")):
            for scores in read_scores(about.parent / _SCORES):
                yield _read_json(about), about.parent.parent, scores

    def _step(self, run: Run) -> int:
        """The step of the saved generators, from the header of their files; 0 if nothing is saved."""
        files = run.folder.generators.glob("*.safetensors")
        return max((read_generator_header(path).step for path in files), default=0)

    def _is_finished(self, run: Run) -> bool:
        dataset = open_dataset(self.data)
        steps_per_epoch = -(-max(map(len, dataset.images.values())) // run.recipe.training.batch_size)
        return self._step(run) >= steps_per_epoch * run.recipe.training.epochs


def format_markdown(rows: Sequence[Row]) -> str:
    """Format the table of each direction in Markdown, with the differences from the paper in setting and ranking."""
    parts: list[str] = []
    for direction in sorted({row.direction for row in rows}):
        selected = [row for row in rows if row.direction == direction]
        parts.append(f"### {direction[0]} → {direction[-1]}\n")
        heading, lines = table_cells(selected)
        parts.append("| " + " | ".join(heading) + " |\n|" + "---|" * len(heading))
        parts += ["| " + " | ".join(line) + " |" for line in lines]
        parts.append("")
        notes = dict.fromkeys(note for row in selected for note in row.notes)
        parts += [f"† {note}" for note in notes]
        parts += ["", *(f"- {sentence}" for sentence in describe_order(selected)), ""]
    return "\n".join(parts).strip() + "\n"


def table_cells(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """The heading and the cells of a table. The three segmentation scores share a cell, as in the paper."""
    names = list(dict.fromkeys(name for row in rows for name in row.scores))
    has_triple = all(name in names for name in _SEGMENTATION)
    singles = [name for name in names if not (has_triple and name in _SEGMENTATION)]
    triple = ["per-pixel acc. / per-class acc. / class IoU", "lowest … highest seed", "paper"] if has_triple else []
    heading = ["", "seeds", *triple, *singles]
    lines: list[list[str]] = []
    for row in rows:
        counts = sorted({len(values) for values in row.scores.values()})
        cells = [row.name, "–".join(map(str, dict.fromkeys((counts[0], counts[-1]))))]
        if has_triple:
            values = [row.scores.get(name, ()) for name in _SEGMENTATION]
            is_complete = all(values)
            cells.append(" / ".join(f"{row.mean(name):.2f}" for name in _SEGMENTATION) if is_complete else "")
            ranges = " / ".join(f"{min(seeds):.2f}…{max(seeds):.2f}" for seeds in values) if is_complete else ""
            cells.append(ranges if len(values[0]) > 1 else "")
            mark = " †" if row.notes else ""
            cells.append(" / ".join(f"{row.paper[name]:.2f}" for name in _SEGMENTATION) + mark if row.paper else "")
        cells += [format_number(row.mean(name)) if name in row.scores else "" for name in singles]
        lines.append(cells)
    return heading, lines


def describe_order(rows: Sequence[Row]) -> Iterator[str]:
    """Compare the ranking of the recipes of each set with the ranking in the paper, one sentence per score."""
    for (name, members), score in itertools.product(SETS.items(), _SEGMENTATION):
        published = [row for row in rows if row.paper and row.name in members]
        swapped = [
            f"{better.name} over {worse.name}"
            for better, worse in itertools.permutations(published, 2)
            if better.mean(score) > worse.mean(score) and better.paper[score] < worse.paper[score]
        ]
        pairs = len(published) * (len(published) - 1) // 2
        if pairs and not swapped:
            yield f"{name}, {score}: all {pairs} pairs are in the same order as in the paper (ties aside)"
        elif pairs:
            yield f"{name}, {score}: {len(swapped)} of {pairs} pairs are in the opposite order: {', '.join(swapped)}"


def _differences(settings: Sequence[Mapping[str, Any]], paper: Mapping[str, Any]) -> tuple[str, ...]:
    fields = ("images", "crop_size", "step", "test_images")
    distinct = dict.fromkeys(tuple(setting[field] for field in fields) for setting in settings)
    paper_steps = paper["images"] * paper["epochs"]
    return tuple(
        f"{images} training images at {size}×{size}, {steps} steps, {test_images} test images; the paper: {paper['images']} at "
        f"{paper['crop_size']}×{paper['crop_size']}, {paper['epochs']} epochs, which are {paper_steps} steps of one image"
        for images, size, steps, test_images in distinct
        if (images, size, steps) != (paper["images"], paper["crop_size"], paper_steps)
    )


def _sort_key(name: str) -> tuple[int, str]:
    """Sort key for the order of the paper's tables; other recipes follow by name."""
    order = list(dict.fromkeys(itertools.chain(*SETS.values())))
    return (order.index(name) if name in order else len(order), name)


def _read_paper() -> dict[str, Any]:
    return tomllib.loads((Path(__file__).parent / "paper.toml").read_text(encoding="utf-8"))


def _read_json(path: Path) -> dict[str, Any]:
    import json

    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); remove its folder to evaluate again") from error

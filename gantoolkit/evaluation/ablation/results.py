"""The results of an ablation on disk: the scores of its runs, and the table that compares them with the paper's."""

import itertools
import json
import math
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gantoolkit.cost.measurement import describe_device
from gantoolkit.data import open_dataset
from gantoolkit.data.evaluation_images import EvaluationImages
from gantoolkit.errors import DataError
from gantoolkit.evaluation.ablation.rows import SEGMENTATION, Effort, Row, format_markdown, plain_rows
from gantoolkit.evaluation.ablation.trials import SETS, Trial, count_steps, read_step
from gantoolkit.evaluation.scoring import DirectionScores, RunScores, choose_metrics, score_run
from gantoolkit.evaluation.tables import Column, read_scores, write_scores
from gantoolkit.files.text import write_csv, write_json, write_text
from gantoolkit.recipes import Recipe
from gantoolkit.run import Run
from gantoolkit.runs.log import read_log
from gantoolkit.runtime.device import select_device

__all__ = ["Ablation", "MetricChoice"]

_SCORES = "scores.json"


class MetricChoice:
    """The metrics of an ablation.

    Args:
        names: Their names.
        settings: Their parameters by dotted path.
        images: The number of test images; all if it is None.
    """

    def __init__(self, names: Sequence[str], settings: Mapping[str, Any], images: int | None = None) -> None:
        self.names, self.settings, self.images = list(names), dict(settings), images
        choose_metrics(self.names, self.settings)  # before anything is trained

    def request(self, step: int, recipe: Recipe) -> dict[str, Any]:
        """What determines the scores of a run. A run may be resumed with another unit, which changes its scores."""
        units = [recipe.data.unit_A, recipe.data.unit_B]
        return {"metrics": self.names, "settings": self.settings, "images": self.images, "step": step, "units": units}


class Ablation:
    """The trials of one data set and their scores.

    Args:
        out: Folder for all runs and the table.
        data: Folder of the data set.
    """

    def __init__(self, out: Path, data: Path) -> None:
        self.out, self.data = out, data

    def has_scores(self, trial: Trial, choice: MetricChoice) -> bool:
        """Whether the scores on disk are those of the trial's newest step and of the chosen metrics and images.

        Raises:
            DataError: If their description is damaged.
        """
        about = trial.path / "scores" / "about.json"
        if not about.is_file() or not (about.parent / _SCORES).is_file():
            return False
        run = Run.open(trial.path, data=self.data)
        return _read_json(about)["request"] == choice.request(read_step(run), run.recipe)

    def measure(self, trial: Trial, choice: MetricChoice, *, device: str | None, jobs: int = 1) -> RunScores:
        """Score a trial, or read its scores from disk if they are of the same metrics, images and step.

        Args:
            trial: The trial.
            choice: The metrics.
            device: As for `gantoolkit.runtime.device.select_device`.
            jobs: The number of trials that were trained at once, which explains the time that they took.

        Raises:
            GantoolkitError: If the evaluation fails.
        """
        folder = trial.path / "scores"
        if self.has_scores(trial, choice):
            return read_scores(folder / _SCORES)[0]
        run = Run.open(trial.path, data=self.data)
        test_images = EvaluationImages.open(self.data, run.recipe.data).take(choice.images).readable()
        name = f"{trial.name}, seed {trial.seed}"
        metrics = choose_metrics(choice.names, choice.settings)
        scores = score_run(run, test_images, metrics, name=name, device=device)
        write_scores([scores], folder)
        setting = {
            "images": max(map(len, open_dataset(self.data).images.values())),
            "crop_size": run.recipe.data.crop_size,
            "epochs": run.recipe.training.epochs,
            "batch_size": run.recipe.training.batch_size,
            "step": scores.step,
        }
        log = read_log(run.folder.log)
        about = {
            "recipe": trial.name,
            "seed": trial.seed,
            "request": choice.request(scores.step, run.recipe),
            "setting": setting,
            "steps": count_steps(run.recipe, self.data),
            "seconds": next((row["seconds"] for row in reversed(log) if "seconds" in row), 0.0),
            "hardware": describe_device(select_device(device)) + (f", {jobs} runs at once" if jobs > 1 else ""),
            "differs": list(trial.differs),
        }
        write_json(folder / "about.json", about)
        return scores

    def rows(self) -> list[Row]:
        """The rows of the table: all evaluated trials in the folder, including those of earlier calls."""
        paper = _read_paper()
        results: dict[tuple[str, str], list[DirectionScores]] = {}
        abouts: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for about, _, run_scores in self._evaluated():
            for direction, result in run_scores.directions.items():
                key = (direction, about["recipe"])
                results.setdefault(key, []).append(result)
                setting = {**about["setting"], "test_images": result.images}
                abouts.setdefault(key, []).append({**about, "setting": setting})
        rows: list[Row] = []
        for direction, name in sorted(results, key=lambda key: (key[0], *_sort_key(key[1]))):
            scores: dict[Column, list[float]] = {}  # seeds may have been evaluated with different metrics or units
            for score, estimate in (item for result in results[direction, name] for item in result.scores.items()):
                scores.setdefault(Column(score, estimate.unit), []).append(estimate.value)
            if not scores:  # none of the metrics applies to this direction
                continue
            published: dict[Column, float] = {}
            if set(SEGMENTATION) <= scores.keys():
                published = dict(zip(SEGMENTATION, paper[direction].get(name, ()), strict=False))
            own = abouts[direction, name]
            notes = _differences(own, paper["setting"]) if published else ()
            efforts = tuple(
                Effort(about["seed"], about["setting"]["step"], about["steps"], about["seconds"], about["hardware"])
                for about in own
            )
            rows.append(Row(name, direction, scores, published, notes, efforts))
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
        """Write the table as Markdown, as CSV and as JSON.

        Raises:
            DataError: If it cannot be written, or no run has been evaluated.
        """
        rows = self.rows()
        if not rows:
            raise DataError(f"{self.out}: contains no evaluated run")
        files = [self.out / "table.md", self.out / "table.csv", self.out / "table.json"]
        plain = plain_rows(rows)
        write_text(files[0], format_markdown(rows))
        write_csv(files[1], plain)
        write_json(files[2], [{key: _to_json(value) for key, value in row.items()} for row in plain])
        return files

    def _evaluated(self) -> Iterator[tuple[dict[str, Any], Path, RunScores]]:
        """The metadata, folder and scores of each evaluated run."""
        for about in sorted(self.out.rglob("scores/about.json")):
            for scores in read_scores(about.parent / _SCORES):
                yield _read_json(about), about.parent.parent, scores


def _differences(abouts: Sequence[Mapping[str, Any]], paper: Mapping[str, Any]) -> tuple[str, ...]:
    fields = ("images", "crop_size", "batch_size", "test_images")
    distinct = dict.fromkeys(tuple(about["setting"][field] for field in fields) for about in abouts)
    paper_steps = paper["images"] * paper["epochs"]
    settings = (
        f"{images} training images at {size}×{size}, {test_images} test images, steps as in the table"
        f"{f', of {batch} images each' if batch > 1 else ''}; the paper: {paper['images']} training images at "
        f"{paper['crop_size']}×{paper['crop_size']}, {paper['epochs']} epochs, which are {paper_steps} steps of one image"
        for images, size, batch, test_images in distinct
    )
    if all(_is_papers(about["setting"], paper) for about in abouts):
        settings = ()
    return (*settings, *dict.fromkeys(note for about in abouts for note in about["differs"]))


def _to_json(value: Any) -> Any:
    """Infinities, such as the PSNR of equal images, as strings: JSON has none."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _is_papers(setting: Mapping[str, Any], paper: Mapping[str, Any]) -> bool:
    """Whether a run has seen as many images of the same size as in the paper, for as long."""
    steps = paper["images"] * paper["epochs"]
    own = (setting["images"], setting["crop_size"], setting["batch_size"], setting["step"])
    return own == (paper["images"], paper["crop_size"], 1, steps)


def _sort_key(name: str) -> tuple[int, str]:
    """Sort key for the order of the paper's tables; other recipes follow by name."""
    order = list(dict.fromkeys(itertools.chain(*SETS.values())))
    return (order.index(name) if name in order else len(order), name)


def _read_paper() -> dict[str, Any]:
    return tomllib.loads((Path(__file__).parent / "paper.toml").read_text(encoding="utf-8"))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); remove its folder to evaluate again") from error

"""Tables of scores for the terminal, and as CSV and JSON files."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gantoolkit.errors import DataError
from gantoolkit.evaluation.intervals import Estimate
from gantoolkit.evaluation.scoring import DirectionScores, RunScores
from gantoolkit.files.text import write_csv, write_json

__all__ = [
    "Column",
    "describe_differences",
    "directions_of",
    "format_estimate",
    "format_number",
    "list_columns",
    "read_scores",
    "write_scores",
]


def directions_of(scores: Sequence[RunScores]) -> list[str]:
    """The directions in any of the scores, sorted."""
    return sorted({direction for run in scores for direction in run.directions})


@dataclass(frozen=True)
class Column:
    """A column of a table of scores: scores of one name and one unit.

    >>> str(Column("l1", "HU")), str(Column("ssim"))
    ('l1 (HU)', 'ssim')
    """

    name: str
    unit: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.unit})" if self.unit else self.name

    def find(self, scores: Mapping[str, Estimate]) -> Estimate | None:
        """The score of this column; None if there is none of its unit."""
        score = scores.get(self.name)
        return score if score is not None and score.unit == self.unit else None


def list_columns(scores: Sequence[RunScores], direction: str) -> list[Column]:
    """The columns for all scores of a direction, in order of first occurrence. Each unit of a score has a column of its own."""
    results = [run.directions[direction] for run in scores if direction in run.directions]
    units: dict[str, dict[str, None]] = {}
    for name, score in (item for result in results for item in result.scores.items()):
        units.setdefault(name, {})[score.unit] = None
    return [Column(name, unit) for name, own in units.items() for unit in own]


def describe_differences(scores: Sequence[RunScores], direction: str) -> list[str]:
    """A sentence if runs of a direction read images as different values, so that their scores cannot be compared."""
    runs: dict[str, list[str]] = {}
    for run in scores:
        if run.path and direction in run.directions:
            runs.setdefault(run.directions[direction].values, []).append(run.name)
    if len(runs) < 2:
        return []
    groups = "; ".join(f"{', '.join(names)}: {values}" for values, names in runs.items())
    return [f"these runs read images differently, so compare only the scores of runs of one kind: {groups}"]


def format_number(value: float, like: float | None = None) -> str:
    """Format a value with at least about three significant digits.

    Args:
        value: The value.
        like: Use as many digits as for this value, such as the one whose interval ends at `value`.

    >>> format_number(0.12345), format_number(23.456), format_number(float("inf"))
    ('0.123', '23.5', '∞')
    >>> format_number(0.00012345), format_number(12345678.9), format_number(0.00012345, like=0.5)
    ('0.000123', '1.23e+07', '0.000')
    """
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    size = abs(value if like is None or not math.isfinite(like) else like)
    if 0 < size < 0.01 or size >= 1e6:
        return f"{value:.3g}"
    return f"{value:.3f}" if size < 10 else f"{value:.1f}"


def format_estimate(estimate: Estimate | None) -> str:
    """Format a value with its interval; an empty string for None."""
    if estimate is None:
        return ""
    if estimate.low is None or estimate.high is None:
        return format_number(estimate.value)
    low, high = (format_number(end, like=estimate.value) for end in (estimate.low, estimate.high))
    return f"{format_number(estimate.value)} [{low}, {high}]"


def write_scores(scores: Sequence[RunScores], folder: Path) -> list[Path]:
    """Write `scores.csv` (a row per score), `images.csv` (a row per image) and `scores.json` (everything).

    Raises:
        DataError: If a file cannot be written.
    """
    score_rows = [
        {
            "name": run.name,
            "step": run.step,
            "direction": direction,
            "images": result.images,
            "score": name,
            **asdict(estimate),
        }
        for run in scores
        for direction, result in run.directions.items()
        for name, estimate in result.scores.items()
    ]
    image_rows = [
        {
            "name": run.name,
            "direction": direction,
            "image": image,
            **_image_columns(result, index),
        }
        for run in scores
        for direction, result in run.directions.items()
        for index, image in enumerate(result.names)
    ]
    files = [folder / "scores.csv", folder / "images.csv", folder / "scores.json"]
    write_csv(files[0], score_rows)
    write_csv(files[1], image_rows)
    write_json(files[2], [_to_plain(run) for run in scores])
    return files


def read_scores(path: Path) -> list[RunScores]:
    """Read the `scores.json` that `write_scores` wrote.

    Raises:
        DataError: If the file cannot be read.
    """
    try:
        return [_from_plain(run) for run in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: cannot be read as scores ({error})") from error


def _image_columns(result: DirectionScores, index: int) -> dict[str, float | str]:
    """The values of one image by name, each followed by its unit if it has one."""
    columns: dict[str, float | str] = {}
    for name, values in result.per_image.items():
        columns[name] = values[index]
        if unit := result.scores[name].unit:
            columns[f"{name}_unit"] = unit
    return columns


def _to_plain(scores: RunScores) -> dict[str, Any]:
    return _write_infinities({**asdict(scores), "path": str(scores.path) if scores.path else None})


def _from_plain(mapping: dict[str, Any]) -> RunScores:
    mapping = _read_infinities(mapping)
    directions = {
        direction: DirectionScores(
            **{**result, "scores": {name: Estimate(**estimate) for name, estimate in result["scores"].items()}}
        )
        for direction, result in mapping["directions"].items()
    }
    path = Path(mapping["path"]) if mapping["path"] else None
    remarks = {name: tuple(mapping[name]) for name in ("skipped", "notes", "passed_over")}
    return RunScores(mapping["name"], path, mapping["step"], directions, **remarks)


def _write_infinities(value: Any) -> Any:
    """Write infinities, such as the PSNR of an image that equals its ground truth, as strings: JSON has no infinity."""
    match value:
        case dict():
            return {key: _write_infinities(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_write_infinities(inner) for inner in value]
        case float() if not math.isfinite(value):
            return str(value)
    return value


def _read_infinities(value: Any) -> Any:
    match value:
        case dict():
            return {key: _read_infinities(inner) for key, inner in value.items()}
        case list():
            return [_read_infinities(inner) for inner in value]
        case "inf" | "-inf" | "nan":
            return float(value)
    return value

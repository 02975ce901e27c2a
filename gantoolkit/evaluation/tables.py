"""Scores as tables: for the terminal, and as CSV and JSON."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gantoolkit.errors import DataError
from gantoolkit.evaluation.intervals import Estimate
from gantoolkit.evaluation.scoring import DirectionScores, RunScores
from gantoolkit.files.text import write_csv, write_json

__all__ = [
    "directions_of",
    "figure_names",
    "format_figure",
    "format_number",
    "read_scores",
    "write_scores",
]


def directions_of(scores: Sequence[RunScores]) -> list[str]:
    """The directions that occur, sorted."""
    return sorted({direction for each in scores for direction in each.directions})


def figure_names(scores: Sequence[RunScores], direction: str) -> list[str]:
    """The figures of a direction that occur in any of the scores, in order."""
    found = [each.directions[direction] for each in scores if direction in each.directions]
    return list(dict.fromkeys(name for scored in found for name in scored.figures))


def format_number(value: float) -> str:
    """As many digits as are worth reading.

    >>> format_number(0.12345), format_number(23.456), format_number(float("inf"))
    ('0.123', '23.5', '∞')
    """
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def format_figure(figure: Estimate | None) -> str:
    """A figure with its interval; nothing for none."""
    if figure is None:
        return ""
    if figure.low is None or figure.high is None:
        return format_number(figure.value)
    return f"{format_number(figure.value)} [{format_number(figure.low)}, {format_number(figure.high)}]"


def write_scores(scores: Sequence[RunScores], folder: Path) -> list[Path]:
    """Write `scores.csv` (a row for each figure), `images.csv` (one for each image) and `scores.json` (everything).

    Raises:
        DataError: When they cannot be written.
    """
    figures = [
        {
            "name": each.name,
            "step": each.step,
            "direction": way,
            "images": scored.images,
            "figure": name,
            **asdict(figure),
        }
        for each in scores
        for way, scored in each.directions.items()
        for name, figure in scored.figures.items()
    ]
    images = [
        {"name": each.name, "direction": way, "image": image, **{name: scored.each[name][row] for name in scored.each}}
        for each in scores
        for way, scored in each.directions.items()
        for row, image in enumerate(scored.names)
    ]
    files = [folder / "scores.csv", folder / "images.csv", folder / "scores.json"]
    write_csv(files[0], figures)
    write_csv(files[1], images)
    write_json(files[2], [_to_plain(each) for each in scores])
    return files


def read_scores(path: Path) -> list[RunScores]:
    """What `write_scores` wrote as JSON.

    Raises:
        DataError: When it cannot be read.
    """
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        return [_from_plain(each) for each in held]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: cannot be read as scores ({error})") from error


def _to_plain(scores: RunScores) -> dict[str, Any]:
    return _write_infinities({**asdict(scores), "path": str(scores.path) if scores.path else None})


def _from_plain(held: dict[str, Any]) -> RunScores:
    held = _read_infinities(held)
    directions = {
        way: DirectionScores(
            **{**scored, "figures": {name: Estimate(**each) for name, each in scored["figures"].items()}}
        )
        for way, scored in held["directions"].items()
    }
    path = Path(held["path"]) if held["path"] else None
    return RunScores(held["name"], path, held["step"], directions, tuple(held["skipped"]))


def _write_infinities(value: Any) -> Any:
    """JSON has no infinity, which is what the PSNR of an image that equals its truth is; it is written as a word."""
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

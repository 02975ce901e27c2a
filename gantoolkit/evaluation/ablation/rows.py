"""The rows of an ablation's table, their format, and the comparison with the paper."""

import itertools
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gantoolkit.evaluation.ablation.trials import SETS
from gantoolkit.evaluation.tables import Column, format_number

__all__ = [
    "SEGMENTATION",
    "Effort",
    "Row",
    "describe_order",
    "describe_rows",
    "format_markdown",
    "plain_rows",
    "table_cells",
]

SEGMENTATION = (Column("pixel_accuracy"), Column("class_accuracy"), Column("class_iou"))
"""The scores in the paper's tables."""


@dataclass(frozen=True)
class Effort:
    """How long an evaluated run was trained.

    Args:
        seed: `training.seed`.
        step: Steps done.
        steps: Steps of the whole run.
        seconds: Time spent training.
        hardware: The device, in words.
    """

    seed: int
    step: int
    steps: int
    seconds: float
    hardware: str


@dataclass(frozen=True)
class Row:
    """A row of the table: one direction of one recipe.

    Args:
        name: The recipe.
        direction: `A2B` or `B2A`.
        scores: Scores by name and unit, with one value for each evaluated seed.
        paper: The paper's scores, if it has this row.
        notes: Known differences from the paper in recipe and data.
        efforts: One for each evaluated seed.
    """

    name: str
    direction: str
    scores: Mapping[Column, Sequence[float]]
    paper: Mapping[Column, float]
    notes: tuple[str, ...]
    efforts: tuple[Effort, ...] = ()

    def mean(self, score: Column) -> float:
        """The mean of a score over seeds."""
        return statistics.fmean(self.scores[score])


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
        parts += [f"† {note}\n" for note in notes]
        parts += [f"Trained on {', '.join(_hardware(selected))}."] if _hardware(selected) else []
        parts += ["", *(f"- {sentence}" for sentence in describe_order(selected)), ""]
    return "\n".join(parts).strip() + "\n"


def plain_rows(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The rows for CSV and JSON: one for each score."""
    return [
        {
            "direction": row.direction,
            "recipe": row.name,
            "score": score.name,
            "unit": score.unit,
            "mean": row.mean(score),
            "lowest": min(values),
            "highest": max(values),
            "seeds": len(values),
            "paper": row.paper.get(score),
            "step": min((effort.step for effort in row.efforts), default=None),
            "steps": max((effort.steps for effort in row.efforts), default=None),
            "seconds": sum(effort.seconds for effort in row.efforts),
            "hardware": "; ".join(_hardware([row])),
            "differs": "; ".join(row.notes),
        }
        for row in rows
        for score, values in row.scores.items()
    ]


def table_cells(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """The heading and the cells of a table. The three segmentation scores share a cell, as in the paper."""
    columns = list(dict.fromkeys(column for row in rows for column in row.scores))
    has_triple = all(column in columns for column in SEGMENTATION)
    singles = [column for column in columns if not (has_triple and column in SEGMENTATION)]
    triple = ["per-pixel acc. / per-class acc. / class IoU", "lowest … highest seed", "paper"] if has_triple else []
    has_efforts = any(row.efforts for row in rows)
    heading = ["", "seeds", *triple, *map(str, singles), *(["steps", "minutes"] if has_efforts else [])]
    lines: list[list[str]] = []
    for row in rows:
        counts = sorted({len(values) for values in row.scores.values()})
        cells = [row.name, "–".join(map(str, dict.fromkeys((counts[0], counts[-1]))))]
        if has_triple:
            values = [row.scores.get(name, ()) for name in SEGMENTATION]
            is_complete = all(values)
            cells.append(" / ".join(f"{row.mean(name):.2f}" for name in SEGMENTATION) if is_complete else "")
            ranges = " / ".join(f"{min(seeds):.2f}…{max(seeds):.2f}" for seeds in values) if is_complete else ""
            cells.append(ranges if len(values[0]) > 1 else "")
            mark = " †" if row.notes else ""
            cells.append(" / ".join(f"{row.paper[name]:.2f}" for name in SEGMENTATION) + mark if row.paper else "")
        cells += [format_number(row.mean(name)) if name in row.scores else "" for name in singles]
        cells += [*_describe_efforts(row.efforts)] if has_efforts else []
        lines.append(cells)
    return heading, lines


def describe_order(rows: Sequence[Row]) -> Iterator[str]:
    """Compare the ranking of the recipes of each set with the ranking in the paper, one sentence per score."""
    unfinished = [row.name for row in rows if any(effort.step < effort.steps for effort in row.efforts)]
    if unfinished:
        yield f"{len(unfinished)} of {len(rows)} rows are not trained to their end, and their order may change"
    for (name, members), score in itertools.product(SETS.items(), SEGMENTATION):
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


def describe_rows(rows: Sequence[Row], seed: int) -> list[str]:
    """Sentences about the runs of a seed: steps, time and hardware of each, then the differences from the paper."""
    sentences = dict.fromkeys(  # a run of both directions has two rows
        f"{row.name}: {effort.step:,} of {effort.steps:,} steps in {effort.seconds / 60:.1f} minutes, {effort.hardware}"
        for row in rows
        for effort in row.efforts
        if effort.seed == seed
    )
    return [*sentences, *dict.fromkeys(note for row in rows for note in row.notes)]


def _describe_efforts(efforts: Sequence[Effort]) -> tuple[str, str]:
    """The fewest steps of a seed, with those of the whole run if it has not ended, and the mean minutes of a seed."""
    if not efforts:
        return "", ""
    least = min(efforts, key=lambda effort: effort.step)
    steps = f"{least.step:,}" if least.step >= least.steps else f"{least.step:,} of {least.steps:,}"
    return steps, f"{statistics.fmean(effort.seconds for effort in efforts) / 60:.1f}"


def _hardware(rows: Sequence[Row]) -> list[str]:
    return sorted({effort.hardware for row in rows for effort in row.efforts})

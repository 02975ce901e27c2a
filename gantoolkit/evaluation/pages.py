"""A self-contained HTML page of scores, with example images."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
from PIL import Image
from torch import Tensor

from gantoolkit.data.evaluation_images import EvaluationImages, evenly_spaced
from gantoolkit.data.images import render_tensor
from gantoolkit.evaluation.scoring import RunScores
from gantoolkit.evaluation.tables import Column, describe_differences, directions_of, format_number, list_columns
from gantoolkit.files.text import write_text
from gantoolkit.plugins import Direction
from gantoolkit.run import Run
from gantoolkit.runtime.version import __version__

__all__ = ["EvaluatedRun", "write_page"]

_ROWS = 4
_MAX_SIDE = 256
_QUALITY = 90
_TEMPLATES = jinja2.Environment(loader=jinja2.PackageLoader("gantoolkit.evaluation"), autoescape=True)
_TEMPLATES.globals["number"] = format_number


@dataclass(frozen=True)
class EvaluatedRun:
    """A run with its scores and the images that it was evaluated on.

    Args:
        scores: The scores.
        run: The run.
        images: The evaluation images.
        best: Whether its best generators were evaluated, instead of its last ones.
    """

    scores: RunScores
    run: Run
    images: EvaluationImages
    best: bool = False


def write_page(
    path: Path,
    scored: Sequence[EvaluatedRun],
    references: Sequence[RunScores],
    *,
    title: str,
    remarks: Sequence[str] = (),
    device: str | None = None,
) -> None:
    """Write the page: tables, the same images through every run, and the best, median and worst images of each run.

    Args:
        path: The file to write.
        scored: The runs.
        references: Scores of references.
        title: The title.
        remarks: Sentences below it.
        device: The device that translates the pictures.

    Raises:
        DataError: If the page cannot be written.
    """
    all_scores = [entry.scores for entry in scored] + list(references)
    sections = []
    for direction in directions_of(all_scores):
        rows = [run for run in all_scores if direction in run.directions]
        sections.append(
            {
                "direction": Direction(direction),
                "columns": list_columns(all_scores, direction),
                "rows": rows,
                "notes": list(dict.fromkeys(note for run in rows for note in run.directions[direction].notes)),
                "differences": describe_differences(all_scores, direction),
                "side_by_side": _side_by_side(scored, direction, device),
                "cases": [_cases(entry, direction, device) for entry in scored if direction in entry.scores.directions],
            }
        )
    template = _TEMPLATES.get_template("scores.html.j2")
    text = template.render(title=title, version=__version__, remarks=remarks, sections=sections)
    write_text(path, text)


def _side_by_side(scored: Sequence[EvaluatedRun], direction: str, device: str | None) -> list[list[tuple[str, str]]]:
    """Translate a few inputs that all runs share with every run of the direction: a row of (caption, picture) per input."""
    entries = [entry for entry in scored if direction in entry.scores.directions]
    files = [entry.images.files(Direction(direction).source) for entry in entries]
    shared = [file for file in (files[0] if files else ()) if all(file in others for others in files)]
    if not shared:  # runs may have been evaluated on different data sets
        return []
    examples = evenly_spaced(shared, _ROWS)
    columns: dict[str, Tensor] = {}
    for entry, own in zip(entries, files, strict=True):
        for name, images in _translate(entry, direction, [own.index(file) for file in examples], device).items():
            columns.setdefault(name if name in ("input", "ground truth") else f"{entry.scores.name}: {name}", images)
    if "ground truth" in columns:  # beside the input, not after the first run
        columns = {"input": columns["input"], "ground truth": columns["ground truth"], **columns}
    return [[(name, _data_uri(images[row])) for name, images in columns.items()] for row in range(len(examples))]


def _cases(entry: EvaluatedRun, direction: str, device: str | None) -> dict[str, object]:
    """The worst, median and best images of a run by its first score with a value per image."""
    result = entry.scores.directions[direction]
    ranked = result.ranked()
    if ranked is None:
        return {"name": entry.scores.name, "score": "", "groups": {}}
    score, order = ranked
    column = Column(score, result.scores[score].unit)
    middle = len(order) // 2
    groups = {"worst": order[-_ROWS:][::-1], "median": order[middle : middle + 1], "best": order[:1]}
    rows = {}
    for group, indices in groups.items():
        columns = _translate(entry, direction, indices, device)
        rows[group] = [
            (
                result.per_image[score][index],
                result.names[index],
                [(name, _data_uri(images[row])) for name, images in columns.items()],
            )
            for row, index in enumerate(indices)
        ]
    return {"name": entry.scores.name, "score": column, "groups": rows}


def _translate(entry: EvaluatedRun, name: str, indices: Sequence[int], device: str | None) -> Mapping[str, Tensor]:
    direction = Direction(name)
    inputs = entry.images.read(direction.source, indices)
    output = entry.run.translator(name, best=entry.best, device=device).translate_tensor(inputs).cpu()
    columns = {"input": inputs, "output": output}
    if direction.reverse in entry.run.directions():
        translator = entry.run.translator(direction.reverse, best=entry.best, device=device)
        columns["reconstruction"] = translator.translate_tensor(output).cpu()
    if entry.images.paired:
        columns["ground truth"] = entry.images.read(direction.target, indices)
    return columns


def _data_uri(image: Tensor) -> str:
    """Encode an image as a data URI, downsized to at most `_MAX_SIDE` pixels a side.

    WebP takes a fifth of the bytes of PNG: a page of thirteen runs would have 20 MB.
    """
    picture = render_tensor(image)
    picture.thumbnail((_MAX_SIDE, _MAX_SIDE), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    picture.save(stream, "WEBP", quality=_QUALITY)
    return f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode()}"

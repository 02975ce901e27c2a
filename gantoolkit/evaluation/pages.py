"""One HTML page for scores, with the pictures that they were taken of; it needs nothing beside it."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
from PIL import Image
from torch import Tensor

from gantoolkit.data.evaluation_images import EvaluationImages, evenly_spaced
from gantoolkit.data.images import draw_tensor
from gantoolkit.evaluation.scoring import RunScores
from gantoolkit.evaluation.tables import directions_of, figure_names, format_figure, format_number
from gantoolkit.files.text import write_text
from gantoolkit.plugins import Direction
from gantoolkit.run import Run
from gantoolkit.runtime.version import __version__

__all__ = ["Scored", "write_page"]

_ROWS = 4
_LARGEST = 256
_TEMPLATES = jinja2.Environment(loader=jinja2.PackageLoader("gantoolkit.evaluation"), autoescape=True)
_TEMPLATES.globals |= {"show": format_figure, "number": format_number}


@dataclass(frozen=True)
class Scored:
    """A run that was measured: its scores, its generators, and the images.

    Args:
        scores: Its figures.
        run: The run.
        images: What it was measured on.
        best: Whether its best generators were taken, not its last.
    """

    scores: RunScores
    run: Run
    images: EvaluationImages
    best: bool = False


def write_page(
    path: Path, scored: Sequence[Scored], references: Sequence[RunScores], *, title: str, device: str | None = None
) -> None:
    """Write the page: tables, the same images through every run, and each run's best, middling and worst.

    Raises:
        DataError: When it cannot be written.
    """
    everything = [each.scores for each in scored] + list(references)
    sections = [
        {
            "direction": Direction(direction),
            "figures": figure_names(everything, direction),
            "rows": [each for each in everything if direction in each.directions],
            "notes": list(
                dict.fromkeys(
                    said
                    for each in everything
                    if direction in each.directions
                    for said in each.directions[direction].notes
                )
            ),
            "side_by_side": _side_by_side(scored, direction, device),
            "cases": [_cases(each, direction, device) for each in scored if direction in each.scores.directions],
        }
        for direction in directions_of(everything)
    ]
    text = _TEMPLATES.get_template("scores.html.j2").render(title=title, version=__version__, sections=sections)
    write_text(path, text)


def _side_by_side(scored: Sequence[Scored], direction: str, device: str | None) -> list[list[tuple[str, str]]]:
    """The same few inputs, a row each, through every run that has the direction: captions and pictures."""
    with_it = [each for each in scored if direction in each.scores.directions]
    files = [each.images.files(Direction(direction).source) for each in with_it]
    shared = [file for file in (files[0] if files else ()) if all(file in others for others in files)]
    if not shared:  # runs may have been measured on different data sets
        return []
    shown = evenly_spaced(shared, _ROWS)
    columns: dict[str, Tensor] = {}
    for each, own in zip(with_it, files, strict=True):
        for name, images in _translate(each, direction, [own.index(file) for file in shown], device).items():
            columns.setdefault(name if name in ("input", "ground_truth") else f"{each.scores.name}: {name}", images)
    if "ground_truth" in columns:  # beside the input, not after the first run
        columns = {"input": columns["input"], "ground_truth": columns["ground_truth"], **columns}
    return [[(name, _picture(images[row])) for name, images in columns.items()] for row in range(len(shown))]


def _cases(each: Scored, direction: str, device: str | None) -> dict[str, object]:
    """The best, the middling and the worst images of a run by its first figure of single images."""
    found = each.scores.directions[direction]
    ranked = found.ranked()
    if ranked is None:
        return {"name": each.scores.name, "figure": "", "groups": []}
    figure, order = ranked
    middle = len(order) // 2
    groups = {"worst": order[-_ROWS:][::-1], "middling": order[middle : middle + 1], "best": order[:1]}
    shown = {}
    for group, rows in groups.items():
        columns = _translate(each, direction, rows, device)
        shown[group] = [
            (
                found.each[figure][row],
                found.names[row],
                [(name, _picture(images[place])) for name, images in columns.items()],
            )
            for place, row in enumerate(rows)
        ]
    return {"name": each.scores.name, "figure": figure, "groups": shown}


def _translate(each: Scored, direction: str, places: Sequence[int], device: str | None) -> Mapping[str, Tensor]:
    way = Direction(direction)
    inputs = each.images.read(way.source, places)
    output = each.run.translator(direction, best=each.best, device=device).translate_tensor(inputs).cpu()
    columns = {"input": inputs, "output": output}
    if way.reverse in each.run.directions():
        translator = each.run.translator(way.reverse, best=each.best, device=device)
        columns["reconstruction"] = translator.translate_tensor(output).cpu()
    if each.images.paired:
        columns["ground_truth"] = each.images.read(way.target, places)
    return columns


def _picture(image: Tensor) -> str:
    """A data URI; large images are made smaller, which the page says."""
    picture = draw_tensor(image)
    picture.thumbnail((_LARGEST, _LARGEST), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"

"""One HTML page for scores, with the pictures that they were taken of; it needs nothing beside it."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
from PIL import Image
from torch import Tensor

from gantoolkit import __version__
from gantoolkit.data.images import draw_tensor
from gantoolkit.data.measured import MeasuredImages
from gantoolkit.errors import DataError
from gantoolkit.evaluation.scoring import RunScores
from gantoolkit.evaluation.tables import directions_of, figure_names, format_figure, format_number
from gantoolkit.files import whole_file
from gantoolkit.run import Run

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
    images: MeasuredImages
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
            "direction": direction,
            "figures": figure_names(everything, direction),
            "rows": [each for each in everything if direction in each.directions],
            "conditions": list(
                dict.fromkeys(
                    said
                    for each in everything
                    if direction in each.directions
                    for said in each.directions[direction].conditions
                )
            ),
            "side_by_side": _side_by_side(scored, direction, device),
            "cases": [_cases(each, direction, device) for each in scored if direction in each.scores.directions],
        }
        for direction in directions_of(everything)
    ]
    text = _TEMPLATES.get_template("scores.html.j2").render(title=title, version=__version__, sections=sections)
    try:
        with whole_file(path) as part:
            part.write_text(text, encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror or error})") from error


def _side_by_side(scored: Sequence[Scored], direction: str, device: str | None) -> list[list[tuple[str, str]]]:
    """The same few inputs, a row each, through every run that has the direction: captions and pictures."""
    with_it = [each for each in scored if direction in each.scores.directions]
    files = [each.images.files(direction[0]) for each in with_it]
    shared = [file for file in (files[0] if files else ()) if all(file in others for others in files)]
    if not shared:  # runs may have been measured on different data sets
        return []
    shown = [shared[place] for place in _spread(len(shared))]
    columns: dict[str, Tensor] = {}
    for each, own in zip(with_it, files, strict=True):
        for name, images in _translate(each, direction, [own.index(file) for file in shown], device).items():
            columns.setdefault(name if name in ("input", "truth") else f"{each.scores.name}: {name}", images)
    if "truth" in columns:  # beside the input, not after the first run
        columns = {"input": columns["input"], "truth": columns["truth"], **columns}
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
    source, target = direction[0], direction[-1]
    inputs = each.images.read(source, places)
    output = each.run.translator(direction, best=each.best, device=device).translate_tensor(inputs).cpu()
    columns = {"input": inputs, "output": output}
    back = f"{target}2{source}"
    if back in each.run.directions():
        translator = each.run.translator(back, best=each.best, device=device)
        columns["reconstruction"] = translator.translate_tensor(output).cpu()
    if each.images.paired:
        columns["truth"] = each.images.read(target, places)
    return columns


def _spread(images: int) -> list[int]:
    count = min(_ROWS, images)
    return [row * images // count for row in range(count)]


def _picture(image: Tensor) -> str:
    """A data URI; large images are made smaller, which the page says."""
    picture = draw_tensor(image)
    picture.thumbnail((_LARGEST, _LARGEST), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"

"""The report of a run: settings, loss curves and samples over time in one self-contained HTML file."""

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jinja2

from gantoolkit.data.evaluation_images import evenly_spaced
from gantoolkit.errors import CheckpointError
from gantoolkit.files.text import write_text
from gantoolkit.recipes import Recipe
from gantoolkit.recipes.deviations import describe_deviations
from gantoolkit.runs.folder import RunFolder
from gantoolkit.runs.health import Finding
from gantoolkit.runs.log import EVALUATION, read_log, unit_name
from gantoolkit.runtime.version import __version__

__all__ = ["write_report"]

_MAX_SAMPLES = 8
_MAX_FILES = 20
_ORDER = ("wrong", "unknown", "healthy")
_TEMPLATES = jinja2.Environment(loader=jinja2.PackageLoader("gantoolkit.runs"), autoescape=True)
_TEMPLATES.filters["capitalize_first"] = lambda text: text[:1].upper() + text[1:]


def write_report(
    folder: RunFolder,
    recipe: Recipe,
    *,
    step: int,
    steps: int,
    seconds: float,
    arithmetic: Mapping[str, str],
    counts: Mapping[str, int],
    findings: Sequence[Finding],
    bad_files: Mapping[str, str] | None = None,
    notes: Sequence[str] = (),
) -> None:
    """Write `report.html` from the run's log and samples.

    Args:
        seconds: Time spent training.
        arithmetic: How the networks are computed, by name.
        counts: Counters by name.
        findings: The verdicts on the run's health.
        bad_files: Skipped files, with the reason.
        notes: Sentences about how the data set was read.

    Raises:
        CheckpointError: When it cannot be written.
    """
    logged = read_log(folder.log)
    rows = [row for row in logged if not _is_evaluation(row)]
    evaluations = [row for row in logged if _is_evaluation(row)]
    grids = sorted(path for path in folder.samples.glob("step-*.png") if path.stem.removeprefix("step-").isdecimal())
    samples = (*evenly_spaced(grids[:-1], _MAX_SAMPLES - 1), *grids[-1:])
    page = _TEMPLATES.get_template("report.html.j2").render(
        recipe=recipe,
        recipe_text=recipe.to_toml(),
        version=__version__,
        step=step,
        steps=steps,
        minutes=seconds / 60,
        rate=step / seconds if seconds else 0.0,
        arithmetic=arithmetic,
        counts=counts,
        bad_files=list((bad_files or {}).items())[:_MAX_FILES],
        more_bad_files=max(0, len(bad_files or {}) - _MAX_FILES),
        notes=notes,
        deviations=describe_deviations(recipe),
        last=rows[-1] if rows else {},
        findings=sorted(findings, key=lambda finding: _ORDER.index(finding.state)),
        wrong=sum(finding.state == "wrong" for finding in findings),
        curves=[_draw_curves(rows, _names(rows, f"{phase}/"), f"{phase}: weighted loss") for phase in _phases(rows)],
        metric=recipe.metric.name,
        evaluations=list(_draw_evaluations(evaluations, recipe.metric.name)),
        samples=[(int(path.stem.removeprefix("step-")), _data_uri(path.read_bytes())) for path in samples],
    )
    write_text(folder.report, page, CheckpointError)


def _phases(rows: list[dict[str, Any]]) -> list[str]:
    names = [name.partition("/")[0] for row in rows for name in row if "/" in name and not name.startswith("lr/")]
    return list(dict.fromkeys(names))


def _is_evaluation(row: Mapping[str, Any]) -> bool:
    return any(name.startswith(f"{EVALUATION}/") for name in row)


def _names(rows: list[dict[str, Any]], prefix: str) -> list[str]:
    """The names of the numbers with this prefix."""
    names = dict.fromkeys(name for row in rows for name in row if name.startswith(prefix))
    return [name for name in names if not any(isinstance(row.get(name), str) for row in rows)]


def _draw_evaluations(rows: list[dict[str, Any]], metric: str) -> Iterator[str]:
    """The values of the metric over the steps, as SVG: one chart for each unit."""
    groups: dict[str, list[str]] = {}
    for name in _names(rows, f"{EVALUATION}/"):
        units = [row[unit_name(name)] for row in rows if unit_name(name) in row]
        groups.setdefault(units[-1] if units else "", []).append(name)
    for unit, names in groups.items():
        yield _draw_curves(rows, names, f"{metric} ({unit})" if unit else metric)


def _draw_curves(rows: list[dict[str, Any]], names: Sequence[str], label: str) -> str:
    """The values of these names over the steps, as SVG."""
    from matplotlib.figure import Figure  # its import takes half a second

    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.subplots()
    for name in names:
        points = [(row["step"], row[name]) for row in rows if name in row]
        steps, values = zip(*points, strict=True)
        total = name.endswith("/total")
        mark = "." if len(steps) == 1 else None
        axes.plot(
            steps,
            values,
            label=name.partition("/")[2],
            color="black" if total else None,
            lw=1.6 if total else 1,
            marker=mark,
        )
    axes.set(xlabel="step", ylabel=label)
    axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
    axes.grid(alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None})
    return stream.getvalue()[stream.getvalue().index("<svg") :]


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"

"""The card of a model: what a run's own files say of it, as the README of a repository on the Hub.

A figure stands in it only if a file of the run, or of `gantoolkit evaluate`, holds it; else it says that none was measured.
What strangers may have written, a recipe's name for instance, is set as code, which nothing in it can leave.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from gantoolkit.data.encoding import encoding_of
from gantoolkit.errors import CheckpointError, GantoolkitError, HubError
from gantoolkit.evaluation.scoring import DirectionScores, RunScores
from gantoolkit.evaluation.tables import format_number, read_scores
from gantoolkit.files.tensors import read_header
from gantoolkit.hub.paths import shorten_paths
from gantoolkit.plugins import REGISTRIES
from gantoolkit.recipes import Recipe
from gantoolkit.run import Run
from gantoolkit.runs import GeneratorHeader, read_generator_header
from gantoolkit.runs.log import EVALUATION, read_log
from gantoolkit.runtime.version import __version__

__all__ = ["PICTURE", "Card", "make_card"]

PICTURE = "pictures/samples.png"
"""Where in the repository the newest samples lie."""

_LONGEST = 200
_SCORES = "scores.json"
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,40}")
_COUNTS = re.compile(r"(\d+) of A, (\d+) of B, [0-9a-f]+")


@dataclass(frozen=True)
class Card:
    """The card's text, and the picture that it shows.

    Args:
        text: Markdown with YAML ahead of it.
        picture: The run's newest samples, if it has drawn any.
    """

    text: str
    picture: Path | None


def make_card(
    run: Run, *, repository: str = "OWNER/NAME", license: str | None = None, scores: Path | None = None
) -> Card:
    """Make the card of a run; for the same files it is the same, to the byte.

    Args:
        repository: What it will be called on the Hub.
        license: The Hub's name for one: `apache-2.0`, `cc-by-nc-4.0`, `other`.
        scores: What `gantoolkit evaluate --out` has written; by default the run's folder `scores`, if there is one.

    Raises:
        HubError: When the license is none, or the scores are of other runs.
        CheckpointError: When nothing has been saved yet, or it is damaged.
        DataError: When the scores cannot be read.
    """
    if license is not None and not _LICENSE.fullmatch(license):
        raise HubError(
            f"--license {license!r} is no name of a license; the Hub's are such as apache-2.0, cc-by-4.0, other"
        )
    headers = [read_generator_header(run.find_generator(direction)) for direction in run.directions()]
    recipe = shorten_paths(run.recipe)[0]
    about = _read_about(run)
    picture = _newest_samples(run)
    text = _TEMPLATES.get_template("card.md.j2").render(
        repository=repository,
        license=license,
        tags=["gantoolkit", "image-to-image", "gan"] + ([recipe.system.name] if recipe.system.name.isalnum() else []),
        recipe=recipe,
        recipe_text=recipe.to_toml(),
        images={domain: encoding_of(recipe.data, domain) for domain in "AB"},
        differs=_differences(recipe),
        headers=headers,
        data=Path(about["data"]).name if about.get("data") else "",
        counts=_count_images(run),
        versions=_versions(run, about),
        scored=_find_scores(run, scores),
        measured=list(_measured_while_training(run)),
        picture=PICTURE if picture else "",
        drawn_at=picture.stem.removeprefix("step-").lstrip("0") if picture and picture.name.startswith("step-") else "",
        steps=sorted({header.step for header in headers}),
        origins=sorted({header.origin for header in headers if header.origin}),
        version=__version__,
    )
    return Card(text, picture)


def _read_about(run: Run) -> Mapping[str, Any]:
    """What `run.json` says; nothing for what was pulled."""
    try:
        return run.folder.read_metadata()
    except CheckpointError:
        return {}


def _newest_samples(run: Run) -> Path | None:
    drawn = sorted(
        path for path in run.folder.samples.glob("step-*.png") if path.stem.removeprefix("step-").isdecimal()
    )
    if drawn:
        return drawn[-1]
    pulled = run.path / PICTURE
    return pulled if pulled.is_file() else None


def _differences(recipe: Recipe) -> list[tuple[str, Any, Any]] | None:
    """Fields that are not as its base sets them; None where there is no base to compare with."""
    if not recipe.base:
        return None
    try:
        base = Recipe.from_base(recipe.base)
        return [(path, here, there) for path, (here, there) in recipe.diff(base).items()]
    except GantoolkitError:  # its package is not installed any more
        return None


def _count_images(run: Run) -> tuple[int, int] | None:
    """How many images of A and of B the run has learned from, as its newest checkpoint has it."""
    for path in reversed(run.folder.list_checkpoints()):
        try:
            progress = read_header(path).get("progress")
        except CheckpointError:
            continue
        found = _COUNTS.fullmatch(str(progress.get("dataset"))) if isinstance(progress, dict) else None
        return (int(found[1]), int(found[2])) if found else None
    return None


def _versions(run: Run, about: Mapping[str, Any]) -> dict[str, str]:
    """Of Python, of the packages that a run notes, and of the plugins whose blocks are in its recipe; no others are named."""
    found: dict[str, Any] = {"python": about.get("python")}
    packages, plugins = about.get("packages"), about.get("plugins")
    found |= packages if isinstance(packages, dict) else {}
    named = set(_names_in(run.recipe.to_mapping()))
    used = {
        entry.distribution
        for registry in REGISTRIES.values()
        for entry in registry.entries()
        if entry.name in named or entry.qualified_name in named
    }
    found |= {name: version for name, version in (plugins if isinstance(plugins, dict) else {}).items() if name in used}
    return {str(name): str(version) for name, version in found.items() if version}


def _names_in(value: Any) -> Iterator[str]:
    match value:
        case dict():
            for inner in value.values():
                yield from _names_in(inner)
        case list() | tuple():
            for inner in value:
                yield from _names_in(inner)
        case str():
            yield value


def _find_scores(run: Run, given: Path | None) -> RunScores | None:
    """What the run came to when it was evaluated."""
    path = run.path / "scores" / _SCORES if given is None else given / _SCORES if given.is_dir() else given
    if given is None and not path.is_file():
        return None
    own = [each for each in read_scores(path) if each.path is not None and each.path.resolve() == run.path.resolve()]
    if not own:
        raise HubError(
            f"{path}: holds no scores of {run.path}; make them with: gantoolkit evaluate {run.path} --out DIR"
        )
    return own[-1]


def _measured_while_training(run: Run) -> Iterator[tuple[int, str, str, float]]:
    """Step, direction, figure and value of the newest measurement."""
    rows = [row for row in read_log(run.folder.log) if any(name.startswith(f"{EVALUATION}/") for name in row)]
    for name, value in (rows[-1] if rows else {}).items():
        if name.startswith(f"{EVALUATION}/") and isinstance(value, int | float):
            direction, _, figure = name.removeprefix(f"{EVALUATION}/").partition("/")
            yield rows[-1]["step"], direction, figure, value


def _set_as_code(value: Any) -> str:
    """Text in one line between as many backticks as it cannot hold; a bar would end a table's cell."""
    text = "".join(sign if sign.isprintable() else " " for sign in str(value))
    text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
    fence = "`" * (_longest_run(text) + 1)
    space = " " if not text.strip() or text[0] in "` " or text[-1] in "` " else ""
    return f"{fence}{space}{text}{space}{fence}".replace("|", "\\|")


def _fence(text: str) -> str:
    """A fence that nothing in a text can close."""
    return "`" * max(3, _longest_run(text) + 1)


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)


def _directions(scored: RunScores) -> Iterator[tuple[str, DirectionScores]]:
    yield from sorted(scored.directions.items())


def _describe_direction(header: GeneratorHeader) -> str:
    return f"{header.direction[:1]} → {header.direction[-1:]}"


_TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("gantoolkit.hub"),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    autoescape=False,  # it is Markdown; what comes from outside is set as code
)
_TEMPLATES.filters |= {"code": _set_as_code, "quoted": json.dumps, "number": format_number}
_TEMPLATES.globals |= {"fence": _fence, "directions": _directions, "arrow": _describe_direction}

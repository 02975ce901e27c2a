"""Model cards: the README of a repository on the Hub, written from the files of a run.

A card contains only scores from the run's log or from `gantoolkit evaluate`; without them it says that there are none.
Untrusted text, such as the name of a recipe, is formatted as code and escaped.
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
from gantoolkit.runs.log import EVALUATION, read_log, unit_name
from gantoolkit.runtime.version import __version__

__all__ = ["PICTURE", "Card", "make_card"]

PICTURE = "pictures/samples.png"
"""The path of the newest samples in the repository."""

_MAX_CHARACTERS = 200
_SCORES = "scores.json"
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,40}")
_COUNTS = re.compile(r"(\d+) of A, (\d+) of B, [0-9a-f]+")


@dataclass(frozen=True)
class Card:
    """The text of a model card and the picture that it shows.

    Args:
        text: Markdown with YAML front matter.
        picture: The run's newest samples; None if it has none.
    """

    text: str
    picture: Path | None


def make_card(
    run: Run, *, repository: str = "OWNER/NAME", license: str | None = None, scores: Path | None = None
) -> Card:
    """Write the model card of a run. It is a deterministic function of the run's files.

    Args:
        run: The run.
        repository: Its name on the Hub.
        license: A license identifier of the Hub: `apache-2.0`, `cc-by-nc-4.0`, `other`.
        scores: The output of `gantoolkit evaluate --out`. Defaults to the run's folder `scores`, if it exists.

    Raises:
        HubError: If the license is not an identifier, or the scores belong to other runs.
        CheckpointError: If the run has no saved generators, or one is damaged.
        DataError: If the scores cannot be read.
    """
    if license is not None and not _LICENSE.fullmatch(license):
        raise HubError(
            f"--license {license!r} is not a license identifier of the Hub, such as apache-2.0, cc-by-4.0 or other"
        )
    headers = [read_generator_header(run.find_generator(direction)) for direction in run.directions()]
    recipe = shorten_paths(run.recipe)[0]
    metadata = _read_metadata(run)
    picture = _newest_samples(run)
    text = _TEMPLATES.get_template("card.md.j2").render(
        repository=repository,
        license=license,
        tags=["gantoolkit", "image-to-image", "gan"] + ([recipe.system.name] if recipe.system.name.isalnum() else []),
        recipe=recipe,
        recipe_text=recipe.to_toml(),
        images={domain: encoding_of(recipe.data, domain) for domain in "AB"},
        differences=_differences(recipe),
        headers=headers,
        data=Path(metadata["data"]).name if metadata.get("data") else "",
        counts=_count_images(run),
        versions=_versions(run, metadata),
        scores=_find_scores(run, scores),
        evaluations=list(_training_evaluations(run)),
        picture=PICTURE if picture else "",
        picture_step=picture.stem.removeprefix("step-").lstrip("0")
        if picture and picture.name.startswith("step-")
        else "",
        steps=sorted({header.step for header in headers}),
        origins=sorted({header.origin for header in headers if header.origin}),
        version=__version__,
    )
    return Card(text, picture)


def _read_metadata(run: Run) -> Mapping[str, Any]:
    """Read `run.json`; empty for a pulled folder, which has none."""
    try:
        return run.folder.read_metadata()
    except CheckpointError:
        return {}


def _newest_samples(run: Run) -> Path | None:
    samples = sorted(
        path for path in run.folder.samples.glob("step-*.png") if path.stem.removeprefix("step-").isdecimal()
    )
    if samples:
        return samples[-1]
    pulled_picture = run.path / PICTURE
    return pulled_picture if pulled_picture.is_file() else None


def _differences(recipe: Recipe) -> list[tuple[str, Any, Any]] | None:
    """Fields that differ from the recipe's base, with both values; None if the base is not available."""
    if not recipe.base:
        return None
    try:
        base = Recipe.from_base(recipe.base)
        return [(path, value, default) for path, (value, default) in recipe.diff(base).items()]
    except GantoolkitError:  # the package of the base is not installed
        return None


def _count_images(run: Run) -> tuple[int, int] | None:
    """The numbers of training images of A and B, from the newest readable checkpoint."""
    for path in reversed(run.folder.list_checkpoints()):
        try:
            progress = read_header(path).get("progress")
        except CheckpointError:
            continue
        match = _COUNTS.fullmatch(str(progress.get("dataset"))) if isinstance(progress, dict) else None
        return (int(match[1]), int(match[2])) if match else None
    return None


def _versions(run: Run, metadata: Mapping[str, Any]) -> dict[str, str]:
    """The versions of Python, of the packages in `run.json`, and of those plugins whose blocks the recipe uses."""
    versions: dict[str, Any] = {"python": metadata.get("python")}
    packages, plugins = metadata.get("packages"), metadata.get("plugins")
    versions |= packages if isinstance(packages, dict) else {}
    names = set(_strings_in(run.recipe.to_mapping()))
    distributions = {
        entry.distribution
        for registry in REGISTRIES.values()
        for entry in registry.entries()
        if entry.name in names or entry.qualified_name in names
    }
    plugins = plugins if isinstance(plugins, dict) else {}
    versions |= {name: version for name, version in plugins.items() if name in distributions}
    return {str(name): str(version) for name, version in versions.items() if version}


def _strings_in(value: Any) -> Iterator[str]:
    match value:
        case dict():
            for inner in value.values():
                yield from _strings_in(inner)
        case list() | tuple():
            for inner in value:
                yield from _strings_in(inner)
        case str():
            yield value


def _find_scores(run: Run, source: Path | None) -> RunScores | None:
    """Read the scores of a run, if it was evaluated."""
    path = run.path / "scores" / _SCORES if source is None else source / _SCORES if source.is_dir() else source
    if source is None and not path.is_file():
        return None
    matches = [scores for scores in read_scores(path) if scores.path and scores.path.resolve() == run.path.resolve()]
    if not matches:
        raise HubError(
            f"{path}: contains no scores of {run.path}; create them with: gantoolkit evaluate {run.path} --out DIR"
        )
    return matches[-1]


def _training_evaluations(run: Run) -> Iterator[tuple[int, str, str, float, str]]:
    """Step, direction, name, value and unit of each score of the last evaluation during training."""
    rows = [row for row in read_log(run.folder.log) if any(name.startswith(f"{EVALUATION}/") for name in row)]
    for path, value in (rows[-1] if rows else {}).items():
        if path.startswith(f"{EVALUATION}/") and isinstance(value, int | float):
            direction, _, name = path.removeprefix(f"{EVALUATION}/").partition("/")
            yield rows[-1]["step"], direction, name, value, str(rows[-1].get(unit_name(path), ""))


def format_code(value: Any) -> str:
    """Format a value as an inline code span that it cannot close, with bars escaped for use in table cells."""
    text = "".join(character if character.isprintable() else " " for character in str(value))
    text = text if len(text) <= _MAX_CHARACTERS else f"{text[:_MAX_CHARACTERS]}…"
    ticks = "`" * (_longest_run(text) + 1)
    space = " " if not text.strip() or text[0] in "` " or text[-1] in "` " else ""
    return f"{ticks}{space}{text}{space}{ticks}".replace("|", "\\|")


def fence(text: str) -> str:
    """A code fence that the text cannot close."""
    return "`" * max(3, _longest_run(text) + 1)


def _longest_run(text: str) -> int:
    """The length of the longest run of backticks."""
    return max(map(len, re.findall("`+", text)), default=0)


def _directions(scores: RunScores) -> Iterator[tuple[str, DirectionScores]]:
    yield from sorted(scores.directions.items())


def _describe_direction(header: GeneratorHeader) -> str:
    return f"{header.direction[:1]} → {header.direction[-1:]}"


_TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("gantoolkit.hub"),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    autoescape=False,  # Markdown, not HTML; untrusted text is formatted as code
)
_TEMPLATES.filters |= {"code": format_code, "quoted": json.dumps, "number": format_number}
_TEMPLATES.globals |= {"fence": fence, "directions": _directions, "arrow": _describe_direction}

"""Designs of ablations: TOML files that list rows with their settings, the metrics, and what differs from the paper."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator
from pydantic_core import PydanticCustomError

from gantoolkit.errors import RecipeError, did_you_mean
from gantoolkit.files.paths import user_path
from gantoolkit.files.toml import read_toml
from gantoolkit.registry.signature import describe_problem

__all__ = ["Design", "DesignRow", "find_design", "list_designs"]

_FOLDER = Path(__file__).parent / "design_files"
_DATA = "{data}"


class DesignRow(BaseModel):
    """A row: a recipe and its own settings.

    Args:
        recipe: The name of a recipe or the path of its file.
        settings: Changes by dotted path.
        differs: Differences from the paper, in words.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: str
    settings: dict[str, Any] = {}
    differs: tuple[str, ...] = ()


class Design(BaseModel):
    """What an ablation trains and measures.

    Args:
        rows: The rows of the table.
        settings: Changes of every row by dotted path; those of a row come after them.
        metrics: As the arguments of `--metric`.
        images: The number of test images; all if it is missing.
        differs: Differences of all rows from the paper, in words.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: tuple[DesignRow, ...]
    settings: dict[str, Any] = {}
    metrics: tuple[str, ...] = ()
    images: int | None = None
    differs: tuple[str, ...] = ()

    @field_validator("rows")
    @classmethod
    def _have_one_name_each(cls, rows: tuple[DesignRow, ...]) -> tuple[DesignRow, ...]:
        names = [row.recipe for row in rows]
        if repeated := [name for name in names if names.count(name) > 1]:
            raise PydanticCustomError(
                "rows",
                "{name} is the recipe of two rows, whose runs would share a folder; write one of them as a .toml file",
                {"name": repeated[0]},
            )
        return rows


def list_designs() -> list[str]:
    """The names of the designs that ship with the package."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def find_design(source: str, data: Path) -> Design:
    """Read a design that ships with the package, by name, or a file. `{data}` in its texts becomes the path of `data`.

    Raises:
        RecipeError: When there is no such design, or the file is not a design.
    """
    known = list_designs()
    if not source.endswith(".toml") and source not in known:
        hint = did_you_mean(source, known)
        raise RecipeError(f"ablate: no design '{source}'.{hint} Known: {', '.join(known)}, or the path of a .toml file")
    path = user_path(source) if source.endswith(".toml") else _FOLDER / f"{source}.toml"
    try:
        return Design.model_validate(_insert(read_toml(path, source), str(data.resolve())))
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(map(str, problem["loc"]))
        raise RecipeError(
            f"{source}: '{field}': {describe_problem(problem)}; a design has [[rows]] with a recipe"
        ) from None


def _insert(value: Any, data: str) -> Any:
    match value:
        case dict():
            return {key: _insert(inner, data) for key, inner in value.items()}
        case list():
            return [_insert(inner, data) for inner in value]
        case str():
            return value.replace(_DATA, data)
    return value

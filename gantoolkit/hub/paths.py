"""Remove local paths from a recipe before it is published."""

from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from gantoolkit.recipes import Recipe

__all__ = ["shorten_paths"]

_FILE = "file:"


def shorten_paths(recipe: Recipe) -> tuple[Recipe, list[str]]:
    """Shorten each absolute path in a recipe to its last part. Returns the recipe and the fields that changed.

    Examples are the file of a block's weights, and the name of a recipe that was read from a file.

    >>> from gantoolkit.recipes import cyclegan
    >>> short, fields = shorten_paths(cyclegan().swap(name="/home/ada/mine.toml"))
    >>> short.name, fields
    ('mine.toml', ['name'])
    """
    fields: list[str] = []
    mapping = _shorten(recipe.to_mapping(), "", fields)
    return (Recipe.from_mapping(mapping) if fields else recipe), fields


def _shorten(value: Any, field: str, fields: list[str]) -> Any:
    match value:
        case dict():
            return {key: _shorten(inner, f"{field}.{key}" if field else key, fields) for key, inner in value.items()}
        case list() | tuple():
            return [_shorten(inner, field, fields) for inner in value]
        case str():
            scheme, path = (_FILE, value.removeprefix(_FILE)) if value.startswith(_FILE) else ("", value)
            if PurePosixPath(path).is_absolute() or path.startswith("~"):
                fields.append(field)
                return f"{scheme}{PurePosixPath(path).name}"
            if PureWindowsPath(path).is_absolute():
                fields.append(field)
                return f"{scheme}{PureWindowsPath(path).name}"
    return value

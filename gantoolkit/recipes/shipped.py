"""The recipe files that ship with the package, and how a name on the command line is resolved to a recipe."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gantoolkit.errors import RecipeError, did_you_mean
from gantoolkit.plugins import recipes
from gantoolkit.recipes.recipe import Recipe

_PACKAGED = Path(__file__).parent / "toml"
_CHECKOUT = Path(__file__).parents[2] / "recipes"


def list_recipe_files() -> dict[str, Path]:
    """The shipped recipe files by name; those in a folder have its name as a prefix: `ablations/nll`."""
    folder = _PACKAGED if _PACKAGED.is_dir() else _CHECKOUT  # an editable install has no copy in the package
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.toml"))}


def find_recipe(source: str, changes: Mapping[str, Any] | None = None) -> Recipe:
    """The recipe of a file (`*.toml`), of a recipe function, or of a shipped file.

    Args:
        source: The path of the file, or the name of the function or of the shipped file.
        changes: Fields to change, and arguments of the recipe function, such as `{"fidelity": "lua"}`.

    Raises:
        RecipeError: When there is no such recipe, or the file is not a recipe.
        PluginError: When a package that offers it cannot be loaded.
    """
    if source.endswith(".toml"):
        return Recipe.from_toml(Path(source), changes=changes)
    files = list_recipe_files()
    if source in files:
        return Recipe.from_toml(files[source], where=source, changes=changes)
    if source in recipes:
        return Recipe.from_base(source, changes or {})
    names = sorted({*recipes.names(), *files})
    hint = did_you_mean(source, names)
    raise RecipeError(f"recipes: no '{source}'.{hint} Known: {', '.join(names)}, or the path of a .toml file")

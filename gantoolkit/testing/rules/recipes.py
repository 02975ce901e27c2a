"""Rules of recipe functions."""

from typing import Any

from gantoolkit import plugins
from gantoolkit.errors import GantoolkitError
from gantoolkit.recipes import Recipe
from gantoolkit.testing.kit import Draw, Rulebook, Subject, expect
from gantoolkit.testing.rules.common import add_schema_rule

__all__ = ["recipes"]

recipes = Rulebook("recipes", examples=1)
add_schema_rule(recipes)


def call(subject: Subject) -> Any:
    try:
        return subject.load()(**subject.block.parameters)
    except TypeError as error:
        return expect(False, f"called so, it raised: {error}")


@recipes.rule
def callable_without_arguments(subject: Subject, draw: Draw) -> None:
    """Called without arguments it returns a `Recipe`, with its paper's settings; called twice, the same one."""
    recipe = call(subject)
    expect(isinstance(recipe, Recipe), f"it returned a {type(recipe).__name__}")
    expect(recipe == call(subject), "two calls returned different recipes")


@recipes.rule
def passes_check(subject: Subject, draw: Draw) -> None:
    """What it returns passes `Recipe.check`: every block can be had, every parameter fits, and the networks fit each other."""
    try:
        call(subject).check()
    except GantoolkitError as error:
        expect(False, str(error))


@recipes.rule
def round_trips_toml(subject: Subject, draw: Draw) -> None:
    """Written to TOML and read again it is the same recipe."""
    recipe = call(subject)
    changed = Recipe.from_toml(recipe.to_toml()).diff(recipe)
    expect(not changed, f"after writing and reading, {changed} differs")


@recipes.rule
def records_base(subject: Subject, draw: Draw) -> None:
    """Its field `base` is empty, or names a recipe function that can be called: reports say in what a run departs from it."""
    base = call(subject).base
    try:
        known = not base or isinstance(plugins.recipes.get(base)(), Recipe)
    except GantoolkitError as error:
        return expect(False, f"base = '{base}': {error}")
    return expect(known, f"base = '{base}' is no recipe")

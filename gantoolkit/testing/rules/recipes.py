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
        return expect(False, f"the call raised: {error}")


@recipes.rule
def is_callable_without_arguments(subject: Subject, draw: Draw) -> None:
    """Called without arguments, it returns a `Recipe` with the settings of its paper. Every call returns an equal one."""
    recipe = call(subject)
    expect(isinstance(recipe, Recipe), f"it returned a {type(recipe).__name__}")
    expect(recipe == call(subject), "two calls returned different recipes")


@recipes.rule
def passes_check(subject: Subject, draw: Draw) -> None:
    """The recipe passes `Recipe.check`: blocks are available, parameters are valid, and the networks fit each other."""
    try:
        call(subject).check()
    except GantoolkitError as error:
        expect(False, str(error))


@recipes.rule
def round_trips_through_toml(subject: Subject, draw: Draw) -> None:
    """Writing the recipe to TOML and reading it again gives an equal recipe."""
    recipe = call(subject)
    changed = Recipe.from_toml(recipe.to_toml()).diff(recipe)
    expect(not changed, f"after writing and reading, {changed} differs")


@recipes.rule
def records_base(subject: Subject, draw: Draw) -> None:
    """The field `base` is empty or names an existing recipe function. Reports list a run's deviations from it."""
    base = call(subject).base
    try:
        known = not base or isinstance(plugins.recipes.get(base)(), Recipe)
    except GantoolkitError as error:
        return expect(False, f"base = '{base}': {error}")
    return expect(known, f"base = '{base}' does not return a recipe")

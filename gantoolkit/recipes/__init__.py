"""Recipes: descriptions of whole runs, the functions that return them, and the recipe files that ship with the package."""

from gantoolkit.recipes.block_spec import BlockSpec
from gantoolkit.recipes.functions import (
    RecipeFunction,
    bigan,
    cogan,
    cyclegan,
    feature_gan,
    gatys,
    pix2pix,
    recipe_function,
    simgan,
)
from gantoolkit.recipes.recipe import Recipe
from gantoolkit.recipes.settings import DataSettings, TrainingSettings
from gantoolkit.recipes.shipped import find_recipe, list_recipe_files

__all__ = [
    "BlockSpec",
    "DataSettings",
    "Recipe",
    "RecipeFunction",
    "TrainingSettings",
    "bigan",
    "cogan",
    "cyclegan",
    "feature_gan",
    "find_recipe",
    "gatys",
    "list_recipe_files",
    "pix2pix",
    "recipe_function",
    "simgan",
]

"""Recipes: functions that return a `Recipe`, and the recipe files that ship with the package."""

from gantoolkit.recipes.files import find_recipe, list_recipe_files
from gantoolkit.recipes.papers import bigan, cogan, cyclegan, feature_gan, gatys, make_recipe, pix2pix, simgan

__all__ = [
    "bigan",
    "cogan",
    "cyclegan",
    "feature_gan",
    "find_recipe",
    "gatys",
    "list_recipe_files",
    "make_recipe",
    "pix2pix",
    "simgan",
]

"""Recipes: functions that return a `Recipe`, and the recipe files that ship with the package."""

from gantoolkit.recipes.files import find_recipe, list_recipe_files
from gantoolkit.recipes.papers import cyclegan, pix2pix

__all__ = ["cyclegan", "find_recipe", "list_recipe_files", "pix2pix"]

"""Blocks: everything that a recipe can swap."""

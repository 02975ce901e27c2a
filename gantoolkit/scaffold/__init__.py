"""Scaffolding for plugins: write a distribution with one working block from templates."""

from gantoolkit.scaffold.writing import Distribution, render_block, write_distribution

__all__ = ["Distribution", "render_block", "write_distribution"]

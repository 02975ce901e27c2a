"""Inference: translate images, files, folders and videos with a trained generator."""

from gantoolkit.inference.files import FileResult, translate_files
from gantoolkit.inference.translator import Tile, Translator

__all__ = ["FileResult", "Tile", "Translator", "translate_files"]

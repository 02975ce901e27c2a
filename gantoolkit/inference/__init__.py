"""Inference: translate images, files, folders and videos with a trained generator."""

from gantoolkit.inference.files import FileResult, translate_files
from gantoolkit.inference.memory import Tile
from gantoolkit.inference.translator import Translator

__all__ = ["FileResult", "Tile", "Translator", "translate_files"]

"""Inference: translate images, files, folders and videos with a trained generator."""

from gantoolkit.inference.files import translate_files
from gantoolkit.inference.translator import Tile, Translator

__all__ = ["Tile", "Translator", "translate_files"]

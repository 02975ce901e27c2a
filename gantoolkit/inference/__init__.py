"""Inference: a trained generator as a function from image to image."""

from gantoolkit.inference.files import translate_files
from gantoolkit.inference.translator import Tile, Translator

__all__ = ["Tile", "Translator", "translate_files"]

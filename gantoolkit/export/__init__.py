"""Export: write a trained generator to a verified file for other programs."""

from gantoolkit.export.exporting import Exported, export_generator
from gantoolkit.export.formats import Format

__all__ = ["Exported", "Format", "export_generator"]

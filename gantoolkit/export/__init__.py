"""Export: a trained generator in a file that other programs read, verified before it is there."""

from gantoolkit.export.exporting import Exported, export_generator
from gantoolkit.export.formats import Format

__all__ = ["Exported", "Format", "export_generator"]

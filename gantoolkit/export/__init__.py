"""Export: write a trained generator to a verified file for other programs."""

from gantoolkit.export.exporting import ExportResult, export_generator
from gantoolkit.export.formats import Format

__all__ = ["ExportResult", "Format", "export_generator"]

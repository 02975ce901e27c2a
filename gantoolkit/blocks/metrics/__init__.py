"""Metrics of the quality of translations."""

from gantoolkit.blocks.metrics.label_maps import LabelMaps
from gantoolkit.blocks.metrics.paired import L1Distance, PeakSignalNoiseRatio, StructuralSimilarity
from gantoolkit.blocks.metrics.palette import Palette, find_palette

__all__ = ["L1Distance", "LabelMaps", "Palette", "PeakSignalNoiseRatio", "StructuralSimilarity", "find_palette"]

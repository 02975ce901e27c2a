"""How good translations are."""

from gantoolkit.evaluation.paired import L1Distance, PeakSignalNoiseRatio, StructuralSimilarity
from gantoolkit.evaluation.palette import Palette, find_palette
from gantoolkit.evaluation.segmentation import LabelMaps

__all__ = ["L1Distance", "LabelMaps", "Palette", "PeakSignalNoiseRatio", "StructuralSimilarity", "find_palette"]

"""How good translations are."""

from gantoolkit.evaluation.paired import L1Distance, PeakSignalNoiseRatio, StructuralSimilarity

__all__ = ["L1Distance", "PeakSignalNoiseRatio", "StructuralSimilarity"]

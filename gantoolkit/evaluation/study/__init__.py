"""Perceptual study: participants decide which of two images is real (Zhu et al. 2017, §5.1.2)."""

from gantoolkit.evaluation.study.materials import Materials
from gantoolkit.evaluation.study.store import Protocol, Store
from gantoolkit.evaluation.study.summary import summarize_study

__all__ = ["Materials", "Protocol", "Store", "summarize_study"]

"""The built-in demo: a small data set of real photographs with known translations, and a run scored on it."""

from gantoolkit.demo.photographs import make_demo_set
from gantoolkit.demo.session import run_demo

__all__ = ["make_demo_set", "run_demo"]

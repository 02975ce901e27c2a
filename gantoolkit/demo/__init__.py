"""The built-in demonstration: a small real data set with a known answer, and a run whose result is measured."""

from gantoolkit.demo.photographs import make_demo_set
from gantoolkit.demo.session import run_demo

__all__ = ["make_demo_set", "run_demo"]

"""A page on which trained generators are tried, and the HTTP that it speaks."""

from gantoolkit.serving.models import Model, open_models
from gantoolkit.serving.queue import Queue

__all__ = ["Model", "Queue", "open_models"]

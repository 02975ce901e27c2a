"""A web page and an HTTP API for trying out trained generators."""

from gantoolkit.serving.models import Model, open_models
from gantoolkit.serving.queue import Queue

__all__ = ["Model", "Queue", "open_models"]

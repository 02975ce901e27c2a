"""Measurements: equality with the official implementation, speed and memory."""

import gantoolkit  # noqa: F401 sets OpenMP's defaults before torch is loaded

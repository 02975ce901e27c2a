"""Measurements: equality with the official implementation, speed and memory."""

import os

# Before torch is loaded: see gantoolkit.cli.app.main.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "20000")

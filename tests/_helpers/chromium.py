"""Chromium, for tests and for the screenshots of the documentation; installed with apt-get if possible."""

import os
import shutil
import subprocess
from functools import cache

NAMES = ("chromium", "chromium-browser", "google-chrome")


class NoBrowserError(Exception):
    """Chromium is not installed and could not be installed."""


@cache
def find_chromium() -> str:
    """The path of Chromium's executable; installs it first if necessary."""
    path = _find_executable()
    if path is None and hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("apt-get"):
        for command in (["apt-get", "update", "-qq"], ["apt-get", "install", "-qq", "-y", "chromium"]):
            subprocess.run(command, capture_output=True, timeout=600, check=False)
        path = _find_executable()
    if path is None:
        raise NoBrowserError("Chromium is not available and could not be installed: apt-get install chromium")
    return path


def _find_executable() -> str | None:
    return next((path for name in NAMES if (path := shutil.which(name))), None)

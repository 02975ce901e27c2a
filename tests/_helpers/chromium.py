"""A real browser for tests and for the screenshots of the documentation: Debian's Chromium, installed where it can be."""

import os
import shutil
import subprocess
from functools import cache

NAMES = ("chromium", "chromium-browser", "google-chrome")


class NoBrowserError(Exception):
    """There is no Chromium, and none can be installed."""


@cache
def find_chromium() -> str:
    """The path of a Chromium."""
    found = _look()
    if found is None and hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("apt-get"):
        for command in (["apt-get", "update", "-qq"], ["apt-get", "install", "-qq", "-y", "chromium"]):
            subprocess.run(command, capture_output=True, timeout=600, check=False)
        found = _look()
    if found is None:
        raise NoBrowserError("no Chromium here, and none can be installed: apt-get install chromium")
    return found


def _look() -> str | None:
    return next((path for name in NAMES if (path := shutil.which(name))), None)

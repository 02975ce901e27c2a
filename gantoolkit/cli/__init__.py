"""The command line: parse, call, print."""

from gantoolkit.cli.app import main

__all__ = ["main"]

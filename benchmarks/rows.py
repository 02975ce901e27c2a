"""Results that are recorded as soon as they are known, for a benchmark that may be stopped.

`benchmarks.gpu` runs benchmarks as stages: their environment names the stage and a file of JSON lines. `record` appends a line
to it; for a benchmark that runs alone, it does nothing.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["append_row", "is_wrong", "record", "stage_environment"]

_FILE, _STAGE, _IGNORE_VALUES = "BENCHMARKS_ROWS", "BENCHMARKS_STAGE", "BENCHMARKS_IGNORE_VALUES"


def stage_environment(rows: Path, stage: str, *, ignore_values: bool) -> dict[str, str]:
    """The environment variables of a stage, whose rows are appended to `rows`.

    Args:
        ignore_values: Whether `is_wrong` accepts every value, for a rehearsal on a device that computes nothing.
    """
    return {_FILE: str(rows.resolve()), _STAGE: stage, _IGNORE_VALUES: "1" if ignore_values else ""}


def record(row: Mapping[str, Any], summary: str = "") -> None:
    """Append a row with the name of the stage.

    Args:
        summary: What the last table says about the stage; a later one replaces it.
    """
    if path := os.environ.get(_FILE):
        append_row(Path(path), {"stage": os.environ[_STAGE], **row, **({"summary": summary} if summary else {})})


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Append one line in a single write, since several processes write to the file."""
    with path.open("ab", buffering=0) as file:
        file.write(json.dumps(row, default=str).encode() + b"\n")


def is_wrong(condition: bool) -> bool:
    """Whether a value that was compared is wrong: `condition`, or False if values are ignored."""
    return condition and not os.environ.get(_IGNORE_VALUES)

"""Text, JSON and CSV files, written atomically."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gantoolkit.errors import DataError, GantoolkitError
from gantoolkit.files.atomic import atomic_write, describe_write_error

__all__ = ["write_csv", "write_json", "write_text"]


def write_text(path: Path, text: str, error: type[GantoolkitError] = DataError) -> None:
    """Write UTF-8 text. Characters that UTF-8 cannot encode are replaced.

    Args:
        error: The type to raise if the file cannot be written.
    """
    content = text.encode(errors="replace")
    try:
        with atomic_write(path) as part:
            part.write_bytes(content)
    except OSError as failure:
        raise error(describe_write_error(path, failure, len(content))) from failure


def write_json(path: Path, value: Any, error: type[GantoolkitError] = DataError) -> None:
    """Write indented JSON without NaN and infinity, which not every reader accepts; `error` as in `write_text`."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n", error)


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]], error: type[GantoolkitError] = DataError) -> None:
    """Write rows, with one column for each key that occurs; `error` as in `write_text`."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    try:
        with atomic_write(path) as part, part.open("w", newline="", encoding="utf-8", errors="replace") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)
    except OSError as failure:
        raise error(describe_write_error(path, failure)) from failure

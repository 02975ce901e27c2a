"""Untrusted TOML: files that are too large, too deep or contain unbounded numbers are rejected."""

import math
import tomllib
from pathlib import Path
from typing import Any

from gantoolkit.errors import RecipeError
from gantoolkit.files.atomic import describe_missing_file
from gantoolkit.files.paths import user_path

__all__ = ["MAX_BYTES", "parse_toml", "read_toml"]

MAX_BYTES = 1 << 18
"""The largest file size. A fully resolved recipe has about 2,000 bytes."""

_MAX_DEPTH = 20
_BITS = 64  # the integers of TOML


def read_toml(path: Path, where: str | None = None) -> dict[str, Any]:
    """Read a TOML file.

    Args:
        path: A regular file, not a pipe or a device, which may have no end.
        where: The name of the file in error messages; `path` by default.

    Raises:
        RecipeError: When the file cannot be read, is not TOML, is too large or too deep, or contains an unbounded number.
    """
    path = user_path(path)
    where = where or str(path)
    if problem := describe_missing_file(path, "a TOML file"):
        raise RecipeError(f"{where}: cannot be read: {problem}")
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        text = "" if len(content) > MAX_BYTES else content.decode()
    except OSError as error:
        raise RecipeError(f"{where}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"{where}: cannot be read: it is not UTF-8 text (byte {error.start})") from error
    if len(content) > MAX_BYTES:
        raise RecipeError(f"{where}: has more than {MAX_BYTES:,} bytes, which is not allowed")
    return parse_toml(text, where)


def parse_toml(text: str, where: str) -> dict[str, Any]:
    """Parse TOML text.

    Raises:
        RecipeError: As `read_toml`.
    """
    if len(text) > MAX_BYTES:
        raise RecipeError(f"{where}: has more than {MAX_BYTES:,} characters, which is not allowed")
    try:
        mapping = tomllib.loads(text.removeprefix("\ufeff"))  # some editors write a byte order mark
    except RecursionError:
        raise RecipeError(f"{where}: is nested more than {_MAX_DEPTH} levels deep, which is not allowed") from None
    except ValueError as error:  # TOMLDecodeError, or Python's error for a number with thousands of digits
        raise RecipeError(f"{where}: is not TOML: {error}") from error
    _check_limits(mapping, where)
    return mapping


def _check_limits(mapping: dict[str, Any], where: str) -> None:
    """Check the depth and the numbers of a mapping, so that later code may recurse into it and format its numbers."""
    level: list[Any] = [mapping]
    for _ in range(_MAX_DEPTH):
        level = [value for parent in level for value in (parent.values() if isinstance(parent, dict) else parent)]
        for number in level:
            if isinstance(number, int) and number.bit_length() >= _BITS:
                raise RecipeError(f"{where}: is not TOML: an integer has at most {_BITS} bits")
            if isinstance(number, float) and not math.isfinite(number):
                raise RecipeError(f"{where}: contains {number}, which is not a finite number")
        level = [value for value in level if isinstance(value, dict | list)]
    if level:
        raise RecipeError(f"{where}: is nested more than {_MAX_DEPTH} levels deep, which is not allowed")

"""TOML from strangers: small, flat, and with numbers that a computer has, or refused in a sentence."""

import math
import tomllib
from pathlib import Path
from typing import Any

from gantoolkit.errors import RecipeError
from gantoolkit.files.atomic import describe_absence

__all__ = ["MAX_BYTES", "parse_toml", "read_toml"]

MAX_BYTES = 1 << 18
"""A recipe with everything written out has about two thousand."""

_MAX_DEPTH = 20
_BITS = 64  # bits, as TOML says of its integers


def read_toml(path: Path, where: str | None = None) -> dict[str, Any]:
    """What a TOML file holds.

    Args:
        path: A regular file; a pipe or a device may have no end.
        where: What to call it in messages.

    Raises:
        RecipeError: When it cannot be read, is no TOML, or is too large, too deep, or holds a number without bounds.
    """
    where = where or str(path)
    if problem := describe_absence(path, "a TOML file"):
        raise RecipeError(f"{where}: cannot be read: {problem}")
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        text = "" if len(content) > MAX_BYTES else content.decode()
    except OSError as error:
        raise RecipeError(f"{where}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"{where}: cannot be read: it is no text in UTF-8 (byte {error.start})") from error
    if len(content) > MAX_BYTES:
        raise RecipeError(f"{where}: has more than {MAX_BYTES:,} bytes, more than such files need; it is refused")
    return parse_toml(text, where)


def parse_toml(text: str, where: str) -> dict[str, Any]:
    """What a text in TOML says.

    Raises:
        RecipeError: As `read_toml`.
    """
    if len(text) > MAX_BYTES:
        raise RecipeError(f"{where}: has more than {MAX_BYTES:,} characters, more than such files need; it is refused")
    try:
        mapping = tomllib.loads(text.removeprefix("\ufeff"))  # some editors begin a file with that mark
    except RecursionError:
        raise RecipeError(f"{where}: is nested more than {_MAX_DEPTH} levels deep; it is refused") from None
    except ValueError as error:  # TOMLDecodeError, and what Python says of a number with thousands of digits
        raise RecipeError(f"{where}: is no TOML: {error}") from error
    _refuse_extremes(mapping, where)
    return mapping


def _refuse_extremes(mapping: dict[str, Any], where: str) -> None:
    """Whatever goes through the mapping later may do so by recursion, and may write its numbers down."""
    level: list[Any] = [mapping]
    for _ in range(_MAX_DEPTH):
        level = [inner for holder in level for inner in (holder.values() if isinstance(holder, dict) else holder)]
        for number in level:
            if isinstance(number, int) and number.bit_length() >= _BITS:
                raise RecipeError(f"{where}: is no TOML: an integer has at most {_BITS} bits")
            if isinstance(number, float) and not math.isfinite(number):
                raise RecipeError(f"{where}: holds {number}, which is no number that anything can be set to")
        level = [holder for holder in level if isinstance(holder, dict | list)]
    if level:
        raise RecipeError(f"{where}: is nested more than {_MAX_DEPTH} levels deep; it is refused")

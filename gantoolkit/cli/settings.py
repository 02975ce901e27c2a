"""`--set field=value` on the command line."""

import tomllib
from collections.abc import Sequence
from typing import Any

from gantoolkit.errors import RecipeError

__all__ = ["parse_setting", "parse_settings"]


def parse_settings(texts: Sequence[str] | None) -> dict[str, Any]:
    """The changes that `--set` lists, in their order; of changes to one field, only the last one.

    >>> parse_settings(["generator.width=8", "generator=unet", "generator.width=4"])
    {'generator': 'unet', 'generator.width': 4}

    Raises:
        RecipeError: As `parse_setting`.
    """
    changes: dict[str, Any] = {}
    for field, value in map(parse_setting, texts or ()):
        changes.pop(field, None)  # a later change counts at its own place: a block's name replaces its parameters
        changes[field] = value
    return changes


def parse_setting(text: str) -> tuple[str, Any]:
    """Split `field=value`. The value is parsed as TOML; a bare word is a string.

    >>> parse_setting("data.crop_size=64"), parse_setting("generator=unet"), parse_setting("cycle_weight=[10, 0]")
    (('data.crop_size', 64), ('generator', 'unet'), ('cycle_weight', [10, 0]))

    Raises:
        RecipeError: When there is no `=`.
    """
    field, equals, value = text.partition("=")
    if not equals or not field.strip():
        raise RecipeError(f"--set {text}: write field=value, such as --set generator.blocks=6")
    try:
        parsed = tomllib.loads(f"value = {value}")
    except (ValueError, RecursionError):
        return field.strip(), value
    if isinstance(parsed["value"], int) and parsed["value"].bit_length() > 63:
        return field.strip(), value  # no field accepts it, and Python refuses to print such a number
    return field.strip(), parsed["value"]

"""Paths on the command line."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import cyclopts

from gantoolkit.files.paths import user_path

__all__ = ["convert_argument"]


def convert_argument(type_: Any, tokens: Sequence[cyclopts.Token]) -> Any:
    """Convert the words of an argument to its type. In paths, `~` is the home folder, also where a shell keeps it: `--out=~/x`.

    Raises:
        DataError: As for `user_path`.
    """
    if _contains_path(type_):
        tokens = [token.evolve(value=str(user_path(token.value))) for token in tokens]
    return cyclopts.convert(type_, tokens)


def _contains_path(type_: Any) -> bool:
    return type_ is Path or any(map(_contains_path, get_args(type_)))

"""Paths that a user writes: `~` is the home folder."""

import os
from pathlib import Path

from gantoolkit.errors import DataError

__all__ = ["user_path"]


def user_path(path: str | os.PathLike[str]) -> Path:
    """Convert a path that a user wrote: `~` and `~name` at its start are home folders, as in a shell.

    A file or folder whose own name begins with `~` is written `./~name`. Without the `./`, it is also recognized if it exists
    and no user has that name. The result never begins with `~`, so that converting it again changes nothing.

    >>> user_path("~/photos") == Path.home() / "photos", user_path("a/~/b")
    (True, PosixPath('a/~/b'))

    Raises:
        DataError: When there is no such user, or the user has no home folder.
    """
    text = os.fspath(path)
    plain = Path(text)
    if not plain.parts or not plain.parts[0].startswith("~"):
        return plain
    if not text.startswith("~"):  # ./~, which pathlib shortens to ~
        return plain.absolute()
    try:
        return plain.expanduser()
    except RuntimeError:
        name = plain.parts[0][1:]
    if name and os.path.lexists(plain):
        return plain.absolute()
    if name:
        raise DataError(f"{plain}: there is no user '{name}'; write ./{plain} if the name begins with ~")
    raise DataError(f"{plain}: your home folder is not known; set HOME, or write the path without ~")

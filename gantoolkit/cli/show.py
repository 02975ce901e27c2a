"""`gantoolkit show`."""

import json
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

__all__ = ["show"]


def show(model: Path, /, *, as_json: Annotated[bool, Parameter(name="--json", negative=())] = False) -> int:
    """Say what is in a generator's file, or in those of a run: direction, recipe, channels, training.

    Nothing but the file's header is read, and no network built, so that a file from anywhere can be looked at.

    Parameters
    ----------
    model
        A generator's file, or a run's folder.
    as_json
        For programs.
    """
    from gantoolkit.run import Run

    files = [model]
    if model.is_dir():
        run = Run.open(model)
        files = [run.find_generator(direction) for direction in run.directions()]
    found = [_read(path) for path in files]
    if as_json:
        print(json.dumps(found, indent=1))
        return 0
    for place, about in enumerate(found):
        if place:
            print()
        for name, value in about.items():
            if name != "differs":
                print(f"{name.replace('_', ' ')}: {value}")
        for path, (here, there) in about["differs"].items():
            print(f"  {path} = {here!r}  (by default {there!r})")
    return 0


def _read(path: Path) -> dict:
    """What a file says, in the order in which it is shown."""
    from gantoolkit.data.encoding import encoding_of
    from gantoolkit.errors import GantoolkitError
    from gantoolkit.recipes import Recipe
    from gantoolkit.runs import read_generator_header

    header = read_generator_header(path)
    about = {"file": str(path), "direction": header.direction}
    try:
        recipe = Recipe.from_toml(header.recipe, where=str(path))
        source, target = encoding_of(recipe.data, header.direction[:1]), encoding_of(recipe.data, header.direction[-1:])
        differs = recipe.diff(Recipe.from_base(recipe.base)) if recipe.base else {}
        about |= {"recipe": recipe.name, "base": recipe.base, "images": f"{source}; to {target}"}
        problem = ""
    except GantoolkitError as error:  # made with blocks that are not installed here, say
        differs, problem = {}, str(error)
    about |= {"steps": header.step, "parameters": header.parameters, "bytes": path.stat().st_size}
    about |= {"origin": header.origin} if header.origin else {}
    about |= {"cannot_be_used_here": problem} if problem else {}
    return about | {"differs": differs}

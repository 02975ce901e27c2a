"""`gantoolkit show`."""

import json
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from gantoolkit.cli.exit_codes import SUCCESS

__all__ = ["show"]


def show(model: Path, /, *, as_json: Annotated[bool, Parameter(name="--json", negative=())] = False) -> int:
    """Describe a generator file, or those of a run: direction, recipe, channels, training.

    Only the file's header is read and no network is built, so untrusted files can be inspected.

    Parameters
    ----------
    model
        A generator file or a run's folder.
    as_json
        Print JSON.
    """
    from gantoolkit.run import Run

    files = [model]
    if model.is_dir():
        run = Run.open(model)
        files = [run.find_generator(direction) for direction in run.directions()]
    descriptions = [_describe(path) for path in files]
    if as_json:
        print(json.dumps(descriptions, indent=1))
        return SUCCESS
    for index, description in enumerate(descriptions):
        if index:
            print()
        for name, value in description.items():
            if name != "differs":
                print(f"{name.replace('_', ' ')}: {value}")
        for field, (value, default) in description["differs"].items():
            print(f"  {field} = {value!r}  (by default {default!r})")
    return SUCCESS


def _describe(path: Path) -> dict:
    """The facts in a generator file's header, in the order in which they are shown."""
    from gantoolkit.data.encoding import encoding_of
    from gantoolkit.errors import GantoolkitError
    from gantoolkit.recipes import Recipe
    from gantoolkit.runs import read_generator_header

    header = read_generator_header(path)
    facts = {"file": str(path), "direction": header.direction}
    try:
        recipe = Recipe.from_toml(header.recipe, where=str(path))
        source, target = encoding_of(recipe.data, header.direction[:1]), encoding_of(recipe.data, header.direction[-1:])
        differs = recipe.diff(Recipe.from_base(recipe.base)) if recipe.base else {}
        facts |= {"recipe": recipe.name, "base": recipe.base, "images": f"{source}; to {target}"}
        problem = ""
    except GantoolkitError as error:  # for instance, a block that is not installed
        differs, problem = {}, str(error)
    facts |= {"steps": header.step, "parameters": header.parameters, "bytes": path.stat().st_size}
    facts |= {"origin": header.origin} if header.origin else {}
    facts |= {"cannot_be_used_here": problem} if problem else {}
    return facts | {"differs": differs}

"""`gantoolkit blocks` and `gantoolkit recipes`."""

import inspect

import cyclopts
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gantoolkit.errors import PluginError, did_you_mean
from gantoolkit.plugins import REGISTRIES

__all__ = ["app", "find_kinds", "recipes"]

app = cyclopts.App(name="blocks", help="List the blocks by kind; `blocks show NAME` describes one.")


@app.default
def list_blocks(kind: str | None = None, /) -> None:
    """List the blocks by kind, without importing them.

    Parameters
    ----------
    kind
        List only this kind, such as generators.
    """
    if kind is not None and kind not in REGISTRIES:
        hint = did_you_mean(kind, REGISTRIES)
        raise PluginError(f"blocks: no kind '{kind}'.{hint} Known: {', '.join(REGISTRIES)}")
    for name in REGISTRIES:
        if kind in (None, name):
            print(f"{name}: {', '.join(_names_of(name)) or 'none'}")


@app.command
def show(name: str, /) -> None:
    """Describe a block: its purpose, and its parameters with their types and defaults.

    Parameters
    ----------
    name
        A block's name. If two kinds share it, put the kind in front: image_pools/none.
    """
    from gantoolkit.registry.signature import read_parameters

    console = Console(soft_wrap=True, highlight=False)
    for index, kind in enumerate(find_kinds(name)):
        entry = REGISTRIES[kind].find(name.rpartition("/")[2])
        block = entry.load()
        if index:
            console.print()
        console.print(f"[bold]{entry.name}[/], one of {kind}, from {entry.distribution} {entry.version}")
        console.print(_summary(block), markup=False)
        table = Table(box=None, padding=(0, 2, 0, 0))
        for heading in ("parameter", "type", "default", ""):
            table.add_column(heading)
        for parameter in read_parameters(block).values():
            type_text, _, default = str(parameter).rpartition(", ")
            cells = (parameter.name, type_text, default.removeprefix("default "), parameter.doc)
            table.add_row(*map(Text, cells))  # brackets are markup in a str
        if table.row_count:
            console.print(table)


def recipes() -> None:
    """List the recipes that `gantoolkit train` accepts by name."""
    from gantoolkit.recipes import list_recipe_files

    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for name in REGISTRIES["recipes"].names():
        table.add_row(Text(name), Text(_summary(REGISTRIES["recipes"].get(name)).partition("\n")[0]))
    for name, path in list_recipe_files().items():
        first = path.read_text(encoding="utf-8").partition("\n")[0]
        table.add_row(Text(name), Text(first.removeprefix("# ")))
    Console(soft_wrap=True, highlight=False).print(table)


def find_kinds(name: str) -> list[str]:
    """The kinds that have a block of this name. The name may have its kind in front: `image_pools/none`.

    Raises:
        PluginError: When there is no such block.
    """
    prefix, _, short = name.rpartition("/")
    registries = {kind: registry for kind, registry in REGISTRIES.items() if prefix in ("", kind)}
    kinds = [kind for kind, registry in registries.items() if short in registry]
    # Finding a hidden block raises the error that says why it is hidden.
    kinds = kinds or [kind for kind, registry in registries.items() if registry.hidden(short)]
    if not kinds:
        names = sorted({known for registry in REGISTRIES.values() for known in registry.names()})
        raise PluginError(f"blocks: no '{name}'.{did_you_mean(short, names)} See `gantoolkit blocks`")
    return kinds


def _names_of(kind: str) -> list[str]:
    """The names of a kind's blocks, qualified where two distributions provide the same name."""
    entries = REGISTRIES[kind].entries()
    names = [entry.name for entry in entries]
    return [entry.qualified_name if names.count(entry.name) > 1 else entry.name for entry in entries]


def _summary(block: object) -> str:
    """A block's docstring up to its list of arguments."""
    text = inspect.getdoc(block) or "(no documentation)"
    return text.partition("\nArgs:")[0].strip()

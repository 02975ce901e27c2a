"""`gantoolkit blocks` and `gantoolkit recipes`: what is there, and what it takes."""

import inspect

import cyclopts
from rich.console import Console
from rich.table import Table

from gantoolkit.errors import PluginError, did_you_mean
from gantoolkit.plugins import REGISTRIES

__all__ = ["app", "find_kinds", "recipes"]

app = cyclopts.App(name="blocks", help="List the blocks by kind; `blocks show NAME` explains one.")


@app.default
def list_blocks(kind: str | None = None, /) -> None:
    """List the blocks, imported or not, by kind.

    Parameters
    ----------
    kind
        One kind only, such as generators.
    """
    if kind is not None and kind not in REGISTRIES:
        hint = did_you_mean(kind, REGISTRIES)
        raise PluginError(f"blocks: no kind '{kind}'.{hint} Known: {', '.join(REGISTRIES)}")
    for name in REGISTRIES:
        if kind in (None, name):
            print(f"{name}: {', '.join(_names_of(name)) or 'none'}")


@app.command
def show(name: str, /) -> None:
    """Explain a block: what it is for, and its parameters with their types and defaults.

    Parameters
    ----------
    name
        A block's name, with its kind in front where two kinds share it: image_pools/none.
    """
    from gantoolkit.registry.signature import read_parameters

    console = Console(soft_wrap=True, highlight=False)
    for position, kind in enumerate(find_kinds(name)):
        entry = REGISTRIES[kind].find(name.rpartition("/")[2])
        block = entry.load()
        if position:
            console.print()
        console.print(f"[bold]{entry.name}[/], one of {kind}, from {entry.distribution} {entry.version}")
        console.print(_summary(block), markup=False)
        table = Table(box=None, padding=(0, 2, 0, 0))
        for heading in ("parameter", "type", "default", ""):
            table.add_column(heading)
        for parameter in read_parameters(block).values():
            kind_and_default = str(parameter).rpartition(", ")
            table.add_row(
                parameter.name, kind_and_default[0], kind_and_default[2].removeprefix("default "), parameter.doc
            )
        if table.row_count:
            console.print(table)


def recipes() -> None:
    """List the recipes that `gantoolkit train` knows by name."""
    from gantoolkit.recipes import list_recipe_files

    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for name in REGISTRIES["recipes"].names():
        table.add_row(name, _summary(REGISTRIES["recipes"].get(name)).partition("\n")[0])
    for name, path in list_recipe_files().items():
        first = path.read_text(encoding="utf-8").partition("\n")[0]
        table.add_row(name, first.removeprefix("# "))
    Console(soft_wrap=True, highlight=False).print(table)


def find_kinds(name: str) -> list[str]:
    """The kinds that know a block of this name, which may have its kind in front: `image_pools/none`.

    Raises:
        PluginError: When none does.
    """
    wanted_kind, _, short = name.rpartition("/")
    wanted = {kind: registry for kind, registry in REGISTRIES.items() if wanted_kind in ("", kind)}
    found = [kind for kind, registry in wanted.items() if short in registry]
    found = found or [kind for kind, registry in wanted.items() if registry.hidden(short)]  # asking will say so
    if not found:
        everything = sorted({known for registry in REGISTRIES.values() for known in registry.names()})
        hint = did_you_mean(short, everything)
        raise PluginError(f"blocks: no '{name}'.{hint} See `gantoolkit blocks`")
    return found


def _names_of(kind: str) -> list[str]:
    """Names, qualified where two distributions offer the same one."""
    entries = REGISTRIES[kind].entries()
    names = [entry.name for entry in entries]
    return [entry.qualified_name if names.count(entry.name) > 1 else entry.name for entry in entries]


def _summary(block: object) -> str:
    """A block's docstring down to its list of arguments."""
    text = inspect.getdoc(block) or "(no documentation)"
    return text.partition("\nArgs:")[0].strip()

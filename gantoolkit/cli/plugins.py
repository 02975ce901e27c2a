"""`gantoolkit plugins`: who offers blocks, and the start of a package that does."""

from pathlib import Path

import cyclopts
from rich.console import Console
from rich.table import Table

from gantoolkit.errors import PluginError
from gantoolkit.plugins import REGISTRIES
from gantoolkit.registry import API_VERSION

__all__ = ["app"]

app = cyclopts.App(
    name="plugins", help="List the distributions that offer blocks; `plugins new` starts one of your own."
)


@app.default
def list_plugins() -> None:
    """List every distribution that offers blocks, with each block and whether it can be loaded."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("distribution", "version", "kind", "block", "state"):
        table.add_column(heading)
    for kind, registry in REGISTRIES.items():
        for entry in registry.entries():
            try:
                entry.load()
                state = "ok"
                if entry.api_version != API_VERSION:
                    state = f"ok, through an adapter from plugin API v{entry.api_version}; v{API_VERSION} is current"
                registry.find(entry.name)  # refused where two distributions offer it
            except PluginError as error:
                state = str(error)
            table.add_row(entry.distribution, entry.version, kind, entry.name, state)
    Console(soft_wrap=True, highlight=False).print(table)


@app.command
def new(distribution: str, /, *, kind: str, out: Path = Path()) -> None:
    """Write a distribution with one working block: pyproject.toml with its entry point, block, tests, README, licence to fill in.

    It installs, and passes its tests and `gantoolkit check`, as it is.

    Parameters
    ----------
    distribution
        Its name, such as gantoolkit-stripes; the block is called what is left without gantoolkit-.
    kind
        The kind of block, such as generators.
    out
        The folder to write it into.
    """
    from gantoolkit.scaffold import write_distribution

    made = write_distribution(distribution, kind, out)
    print(f"wrote {made.folder}")
    for path in made.files:
        print(f"  {path.relative_to(made.folder)}")
    print(f"now: pip install --editable '{made.folder}[test]' && gantoolkit check {kind}/{made.block}")

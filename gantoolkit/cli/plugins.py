"""`gantoolkit plugins`: list distributions that provide blocks, or start one."""

from pathlib import Path

import cyclopts

from gantoolkit.errors import PluginError
from gantoolkit.plugins import REGISTRIES
from gantoolkit.registry.registry import API_VERSION, find_unknown_kinds

__all__ = ["app"]

app = cyclopts.App(
    name="plugins", help="List the distributions that provide blocks; `plugins new` creates one of your own."
)


@app.default
def list_plugins() -> None:
    """List every distribution that provides blocks, its blocks, and whether each can be loaded."""
    rows = [("distribution", "version", "kind", "block", "state")]
    for kind, registry in REGISTRIES.items():
        for entry in registry.entries():
            try:
                entry.load()
                state = "ok"
                if entry.api_version != API_VERSION:
                    state = f"ok, through an adapter from plugin API v{entry.api_version}; v{API_VERSION} is current"
                registry.find(entry.name)  # raises if two distributions provide the name
            except PluginError as error:
                state = str(error)
            rows.append((entry.distribution, entry.version, kind, entry.name, state))
    rows += [
        (entry.distribution, entry.version, entry.kind, entry.name, f"gantoolkit knows no kind '{entry.kind}'")
        for entry in find_unknown_kinds(REGISTRIES)
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for *cells, state in rows:  # one line each, however long, so that grep finds errors
        print(*(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)), state, sep="  ")


@app.command
def new(distribution: str, /, *, kind: str, out: Path = Path()) -> None:
    """Create a distribution with one working block: entry point, block, tests, README, and a license to fill in.

    It can be installed as it is, and passes its tests and `gantoolkit check`.

    Parameters
    ----------
    distribution
        Its name, such as gantoolkit-stripes. The block has this name without gantoolkit-.
    kind
        The kind of block, such as generators.
    out
        The folder in which to create it.
    """
    from gantoolkit.scaffold import write_distribution

    result = write_distribution(distribution, kind, out)
    print(f"wrote {result.folder}")
    for path in result.files:
        print(f"  {path.relative_to(result.folder)}")
    print(f"next: pip install --editable '{result.folder}[test]' && gantoolkit check {kind}/{result.block}")

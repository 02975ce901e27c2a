"""`gantoolkit plugins`: who offers blocks, and the start of a package that does."""

from pathlib import Path

import cyclopts

from gantoolkit.errors import PluginError
from gantoolkit.plugins import REGISTRIES
from gantoolkit.registry.registry import API_VERSION, find_unknown_kinds

__all__ = ["app"]

app = cyclopts.App(
    name="plugins", help="List the distributions that offer blocks; `plugins new` starts one of your own."
)


@app.default
def list_plugins() -> None:
    """List every distribution that offers blocks, with each block and whether it can be loaded."""
    rows = [("distribution", "version", "kind", "block", "state")]
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
            rows.append((entry.distribution, entry.version, kind, entry.name, state))
    rows += [
        (entry.distribution, entry.version, entry.kind, entry.name, f"gantoolkit knows no kind '{entry.kind}'")
        for entry in find_unknown_kinds(REGISTRIES)
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for *facts, state in rows:  # one line each, however long: an error is to be read, and found by grep
        print(*(fact.ljust(width) for fact, width in zip(facts, widths, strict=True)), state, sep="  ")


@app.command
def new(distribution: str, /, *, kind: str, out: Path = Path()) -> None:
    """Write a distribution with one working block: entry point, block, tests, README, a license to fill in.

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

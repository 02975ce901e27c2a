"""Generate the page of each kind of block from the code: its protocol, its rules, and an example."""

import os

os.environ["GANTOOLKIT_PLUGINS"] = "0"  # the pages list gantoolkit's own blocks only

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from gantoolkit.plugins import REGISTRIES
from gantoolkit.registry.registry import API_VERSION
from gantoolkit.scaffold import render_block
from gantoolkit.testing import RULEBOOKS

PROTOCOLS = {
    "generators": ("plugins.Generator",),
    "discriminators": ("plugins.Discriminator", "plugins.ObservingDiscriminator"),
    "coupled_generators": ("plugins.CoupledGenerator",),
    "coupled_discriminators": ("plugins.CoupledDiscriminator",),
    "feature_extractors": ("plugins.FeatureExtractor",),
    "adversarial_losses": ("plugins.AdversarialLoss", "plugins.PenalizedLoss"),
    "image_losses": ("plugins.ImageLoss",),
    "image_pools": ("plugins.ImagePool", "plugins.PlannedPool"),
    "schedulers": ("plugins.Scheduler", "plugins.ObservingScheduler"),
    "initializers": ("plugins.Initializer",),
    "optimizers": ("plugins.Optimizer",),
    "metrics": ("plugins.Metric", "plugins.SummedMetric"),
    "systems": ("plugins.System", "plugins.Phase", "plugins.SystemContext", "systems.objectives"),
    "recipes": ("recipes.recipe_function", "recipes.RecipeFunction"),
}
INTRODUCTIONS = {
    "recipes": "A function that returns a [`Recipe`](../../reference/recipes.md). Its arguments are keyword-only and have "
    "defaults. The decorator `recipe_function` turns a function that returns a paper's settings into a recipe function.",
}

INDEX = """# Kinds of blocks

Each kind has a page with its protocol, the rules that `gantoolkit check` tests, and an example. The tutorial
[Write a plugin](../tutorials/write-a-plugin.md) builds one block step by step.

| kind | entry-point group | built-in blocks |
|---|---|---|
{rows}

::: gantoolkit.plugins
    options:
      members: [Batch, Shared, Pairing, Direction, PIXEL_VALUES, NetworkTraits, MetricTraits, read_traits]
      show_root_heading: false
"""

PAGE = """# {title}

Entry-point group: `gantoolkit.v{version}.{kind}`. Built-in blocks: {names}.

## Protocol

{introduction}

{protocols}

## Rules

`gantoolkit check NAME` tests these rules. A decorator runs them with pytest ([Testing a plugin](../testing.md)).

| rule | requirement |
|---|---|
{rules}

## Example

`gantoolkit plugins new gantoolkit-stripes --kind {kind}` writes this block:

```python
{example}```
"""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages to the site."""
    names = {kind: ", ".join(f"`{name}`" for name in registry.names()) for kind, registry in REGISTRIES.items()}
    rows = [
        f"| [{title_of(kind)}](kinds/{kind}.md) | `gantoolkit.v{API_VERSION}.{kind}` | {names[kind]} |"
        for kind in names
    ]
    files.append(File.generated(config, "plugins/kinds.md", content=INDEX.format(rows="\n".join(rows))))
    for kind in names:
        files.append(File.generated(config, f"plugins/kinds/{kind}.md", content=render_page(kind, names[kind])))
    return files


def title_of(kind: str) -> str:
    """The heading of a kind."""
    return kind.replace("_", " ").capitalize()


def render_page(kind: str, names: str) -> str:
    """The page of a kind, in Markdown."""
    return PAGE.format(
        title=title_of(kind),
        version=API_VERSION,
        kind=kind,
        names=names,
        introduction=INTRODUCTIONS.get(kind, ""),
        protocols="\n\n".join(f"::: gantoolkit.{name}" for name in PROTOCOLS[kind]),
        rules="\n".join(f"| `{rule.name}` | {rule.requirement} |" for rule in RULEBOOKS[kind].rules),
        example=render_block(kind, "stripes"),
    )

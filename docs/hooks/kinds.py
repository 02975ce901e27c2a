"""Makes a page for each kind of block from the code: protocol, rules, and a small block of that kind."""

import os

os.environ["GANTOOLKIT_PLUGINS"] = "0"  # the pages show gantoolkit's own blocks, whatever is installed

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
    "systems": ("plugins.System", "plugins.Phase", "plugins.SystemContext", "systems.terms"),
    "recipes": ("recipes.recipe_function", "recipes.RecipeFunction"),
}
WORDS = {
    "recipes": "A function whose arguments are keyword-only, all with defaults, and which returns a "
    "[`Recipe`](../../reference/recipes.md). `recipe_function` turns a function that returns a paper's settings into one.",
}

INDEX = """# Kinds of blocks

A page for each: its protocol, the rules that `gantoolkit check` tries, and a small block of that kind.
[Write a plugin](../tutorials/write-a-plugin.md) takes you through it once.

| kind | entry-point group | in gantoolkit |
|---|---|---|
{rows}

::: gantoolkit.plugins
    options:
      members: [Batch, Shared, Pairing]
      show_root_heading: false
"""

PAGE = """# {title}

Entry-point group: `gantoolkit.v{version}.{kind}`. In gantoolkit: {names}.

## Protocol

{words}

{protocols}

## Rules

`gantoolkit check NAME` tries these, and so does one line of a test ([Testing a plugin](../testing.md)):

| rule | what the protocol wants |
|---|---|
{rules}

## A small one

What `gantoolkit plugins new gantoolkit-stripes --kind {kind}` starts with:

```python
{example}```
"""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages to those on disk."""
    names = {kind: ", ".join(f"`{name}`" for name in registry.names()) for kind, registry in REGISTRIES.items()}
    rows = [
        f"| [{title_of(kind)}](kinds/{kind}.md) | `gantoolkit.v{API_VERSION}.{kind}` | {names[kind]} |"
        for kind in names
    ]
    files.append(File.generated(config, "plugins/kinds.md", content=INDEX.format(rows="\n".join(rows))))
    for kind in names:
        files.append(File.generated(config, f"plugins/kinds/{kind}.md", content=make_page(kind, names[kind])))
    return files


def title_of(kind: str) -> str:
    """A kind as a heading."""
    return kind.replace("_", " ").capitalize()


def make_page(kind: str, names: str) -> str:
    """One kind's page, in Markdown."""
    return PAGE.format(
        title=title_of(kind),
        version=API_VERSION,
        kind=kind,
        names=names,
        words=WORDS.get(kind, ""),
        protocols="\n\n".join(f"::: gantoolkit.{name}" for name in PROTOCOLS[kind]),
        rules="\n".join(f"| `{rule.name}` | {rule.requirement} |" for rule in RULEBOOKS[kind].rules),
        example=render_block(kind, "stripes"),
    )

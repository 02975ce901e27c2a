"""Write a plugin distribution with one block, for `gantoolkit plugins new`."""

import re
from dataclasses import dataclass
from pathlib import Path

import jinja2

from gantoolkit.errors import PluginError, did_you_mean
from gantoolkit.files.text import write_text
from gantoolkit.plugins import REGISTRIES
from gantoolkit.registry.registry import API_VERSION
from gantoolkit.runtime.version import __version__

__all__ = ["Distribution", "render_block", "write_distribution"]

_PREFIX = "gantoolkit-"
_NAME = re.compile(r"[A-Za-z]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_TEMPLATES = Path(__file__).parent / "templates"

_DECORATORS = {
    "feature_extractors": 'feature_extractor_checks("{}", layers=["1", "2"])',
    "adversarial_losses": 'adversarial_loss_checks("{}")',
    "image_losses": 'image_loss_checks("{}")',
}
"""The test decorators of kinds whose decorator does not follow from the kind's name."""


@dataclass(frozen=True)
class Distribution:
    """A distribution on disk: its folder, its files, and the name of its block."""

    folder: Path
    files: tuple[Path, ...]
    block: str


def write_distribution(name: str, kind: str, out: Path) -> Distribution:
    """Write a distribution called `name` with a block of `kind` to the new folder `out / name`.

    Raises:
        PluginError: When the name or the kind is not valid, the folder exists already, or it cannot be written.
    """
    if kind not in REGISTRIES:
        hint = did_you_mean(kind, REGISTRIES)
        raise PluginError(f"plugins new: unknown kind '{kind}'.{hint} Known kinds: {', '.join(REGISTRIES)}")
    if not _NAME.fullmatch(name):
        raise PluginError(f"plugins new: '{name}' is not a valid distribution name; use letters, digits and '-'")
    block = re.sub(r"[-_.]+", "_", name.lower().removeprefix(_PREFIX))
    if not block.isidentifier():
        raise PluginError(
            f"plugins new: '{name}' contains no valid block name; use {_PREFIX}<block>, where the block starts with a letter"
        )
    if block in REGISTRIES[kind]:
        owner = REGISTRIES[kind].find(block).distribution
        raise PluginError(f"plugins new: {owner} already provides '{block}' in {kind}; choose another name")
    folder = out / name
    if folder.exists():
        raise PluginError(f"plugins new: {folder} exists already; choose another name, or another --out")
    package = re.sub(r"[-_.]+", "_", name.lower())
    source = Path("src") / package
    variables = {
        "distribution": name,
        "package": package,
        "kind": kind,
        "block": block,
        "object": _object_name(kind, block),
        "checks": _DECORATORS.get(kind, f'{kind.removesuffix("s")}_checks("{{}}")').format(block),
        "api_version": API_VERSION,
        "version": __version__,
    }
    texts = {
        Path("pyproject.toml"): _render("pyproject.toml", variables),
        Path("README.md"): _render("README.md", variables),
        Path("LICENSE"): _render("LICENSE", variables),
        source / "__init__.py": _render("init.py", variables),
        source / f"{block}.py": render_block(kind, block),
        source / "py.typed": "",
        Path("tests") / f"test_{block}.py": _render("tests.py", variables),
    }
    for path, text in texts.items():
        write_text(folder / path, text, PluginError)
    return Distribution(folder, tuple(folder / path for path in texts), block)


def render_block(kind: str, block: str) -> str:
    """Render the source of a small working block of a kind."""
    return _render(f"blocks/{kind}.py", {"block": block, "object": _object_name(kind, block)})


def _object_name(kind: str, block: str) -> str:
    """The name of the block's class or function."""
    if kind in ("optimizers", "recipes"):
        return block
    return "".join(word.capitalize() for word in block.split("_"))


def _render(template: str, variables: dict[str, object]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    return environment.get_template(f"{template}.jinja").render(variables)

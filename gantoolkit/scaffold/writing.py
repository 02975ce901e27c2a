"""Writes a distribution that offers one block: what `gantoolkit plugins new` does."""

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

_CHECKED_AS = {
    "feature_extractors": 'feature_extractor_checks("{}", layers=["1", "2"])',
    "adversarial_losses": 'adversarial_loss_checks("{}")',
    "image_losses": 'image_loss_checks("{}")',
}
"""How a test checks a block, where it is not the kind's name in the singular alone."""


@dataclass(frozen=True)
class Distribution:
    """What was written: the folder, the files in it, and the name of the block."""

    folder: Path
    files: tuple[Path, ...]
    block: str


def write_distribution(name: str, kind: str, out: Path) -> Distribution:
    """Write a distribution called `name`, with a block of `kind`, into a new folder of that name in `out`.

    Raises:
        PluginError: When the name or the kind will not do, the folder is there already, or nothing can be written.
    """
    if kind not in REGISTRIES:
        hint = did_you_mean(kind, REGISTRIES)
        raise PluginError(f"plugins new: no kind '{kind}'.{hint} Known: {', '.join(REGISTRIES)}")
    if not _NAME.fullmatch(name):
        raise PluginError(f"plugins new: '{name}' is no name for a distribution; write letters, digits and '-' only")
    block = re.sub(r"[-_.]+", "_", name.lower().removeprefix(_PREFIX))
    if not block.isidentifier():
        raise PluginError(f"plugins new: '{name}' leaves no name for the block; call it {_PREFIX}<name of the block>")
    if block in REGISTRIES[kind]:
        owner = REGISTRIES[kind].find(block).distribution
        raise PluginError(f"plugins new: {kind} has a '{block}' from {owner} already; choose another name")
    folder = out / name
    if folder.exists():
        raise PluginError(f"plugins new: {folder} is there already; choose another name, or another --out")
    package = re.sub(r"[-_.]+", "_", name.lower())
    source = Path("src") / package
    facts = {
        "distribution": name,
        "package": package,
        "kind": kind,
        "block": block,
        "object": _object_name(kind, block),
        "checks": _CHECKED_AS.get(kind, f'{kind.removesuffix("s")}_checks("{{}}")').format(block),
        "api_version": API_VERSION,
        "version": __version__,
    }
    texts = {
        Path("pyproject.toml"): _render("pyproject.toml", facts),
        Path("README.md"): _render("README.md", facts),
        Path("LICENSE"): _render("LICENSE", facts),
        source / "__init__.py": _render("init.py", facts),
        source / f"{block}.py": render_block(kind, block),
        source / "py.typed": "",
        Path("tests") / f"test_{block}.py": _render("tests.py", facts),
    }
    for path, text in texts.items():
        write_text(folder / path, text, PluginError)
    return Distribution(folder, tuple(folder / path for path in texts), block)


def render_block(kind: str, block: str) -> str:
    """The source of a small working block of a kind."""
    return _render(f"blocks/{kind}.py", {"block": block, "object": _object_name(kind, block)})


def _object_name(kind: str, block: str) -> str:
    """What the class, or the function, is called."""
    if kind in ("optimizers", "recipes"):
        return block
    return "".join(word.capitalize() for word in block.split("_"))


def _render(template: str, facts: dict[str, object]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    return environment.get_template(f"{template}.jinja").render(facts)

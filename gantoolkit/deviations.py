"""In what a recipe departs from its paper's settings, in words."""

from typing import Any

from gantoolkit.errors import GantoolkitError
from gantoolkit.parameters import document_parameters, read_parameters
from gantoolkit.plugins import REGISTRIES
from gantoolkit.recipe import Recipe

__all__ = ["describe_deviations"]

_WITHOUT_EFFECT = (
    "data.max_bad_files",
    "training.checkpoint_every",
    "training.deterministic",
    "training.keep_checkpoints",
    "training.log_every",
    "training.sample_every",
    "training.samples",
    "training.seed",
    "batched",
)
"""Fields that leave the result as it is, but for chance."""


def describe_deviations(recipe: Recipe) -> list[str] | None:
    """One sentence for each field that differs from what `recipe.base`, called without arguments, sets; None without a base.

    >>> from gantoolkit.recipes import cyclegan
    >>> describe_deviations(cyclegan())
    []
    >>> for sentence in describe_deviations(cyclegan(cycle_weight=5.0, adversarial_loss="nll")):
    ...     print(sentence)
    cycle_weight is 5.0, the paper's is 10.0: Weight of the cycle terms, the paper's λ; one number, or one for A → B → A (forward) and one for B → A → B (backward).
    adversarial_loss is nll, the paper's is lsgan: How logits are judged.
    """  # noqa: E501 (a sentence of the report is one line)
    if not recipe.base:
        return None
    try:
        paper = REGISTRIES["recipes"].get(recipe.base)().resolve()
    except GantoolkitError:  # its package is not installed any more, or another version
        return None
    recipe = recipe.resolve()
    changes = recipe.diff(paper)
    swapped = [path.removesuffix(".name") for path in changes if path.endswith(".name")]
    sentences: list[str] = []
    for path, (here, there) in changes.items():
        block = path.removesuffix(".name")
        # What a block that was exchanged has for parameters says nothing beside what it was exchanged for.
        if path in _WITHOUT_EFFECT or any(path.startswith(f"{other}.") and block != other for other in swapped):
            continue
        doc = _explain(recipe, block)
        sentences.append(f"{block} is {_show(here)}, the paper's is {_show(there)}{f': {doc}' if doc else ''}")
    return sentences


def _explain(recipe: Recipe, path: str) -> str:
    """The line of documentation of a field, such as `generator.blocks`."""
    field, _, inside = path.partition(".")
    if field in ("data", "training"):
        return document_parameters(type(getattr(recipe, field))).get(inside, "")
    if field in Recipe.model_fields and not inside:
        return document_parameters(Recipe).get(field, "")
    holder, names = recipe.system, path.split(".")
    if field in Recipe.model_fields:
        holder, names = getattr(recipe, field), names[1:]
        kind = f"{field}s"
    else:
        kind = "systems"
    for name in names[:-1]:
        kind = read_parameters(holder.load(kind))[name].slot or kind
        holder = holder.parameters[name]
    parameter = read_parameters(holder.load(kind)).get(names[-1])
    return parameter.doc if parameter else ""


def _show(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list | tuple):
        return " and ".join(map(_show, value))
    return "none" if value is None else str(value)

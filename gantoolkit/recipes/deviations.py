"""Describe how a recipe deviates from its paper's settings."""

from typing import Any

from gantoolkit.errors import GantoolkitError
from gantoolkit.plugins import REGISTRIES
from gantoolkit.recipes.recipe import Recipe

__all__ = ["describe_deviations"]


def describe_deviations(recipe: Recipe) -> list[str] | None:
    """One sentence for each field that differs from `recipe.base` called without arguments; None if the recipe has no base.

    >>> from gantoolkit.recipes import cyclegan
    >>> describe_deviations(cyclegan())
    []
    >>> for sentence in describe_deviations(cyclegan(cycle_weight=5.0, adversarial_loss="nll")):
    ...     print(sentence)
    cycle_weight is 5.0, the paper's is 10.0: Weight of the cycle terms, the paper's λ; one number, or one for A → B → A (forward) and one for B → A → B (backward).
    adversarial_loss is nll, the paper's is lsgan: Scores logits.
    """  # noqa: E501 (a sentence of the report is one line)
    if not recipe.base:
        return None
    try:
        paper = REGISTRIES["recipes"].get(recipe.base)().resolve()
    except GantoolkitError:  # its package is missing, or has another version
        return None
    recipe = recipe.resolve()
    changes = recipe.diff(paper)
    swapped = [path.removesuffix(".name") for path in changes if path.endswith(".name")]
    sentences: list[str] = []
    for path, (value, paper_value) in changes.items():
        block = path.removesuffix(".name")
        # The parameters of a swapped block add nothing to the fact that it was swapped.
        if any(path.startswith(f"{other}.") and block != other for other in swapped):
            continue
        parameter = recipe.find_parameter(block)
        if parameter is not None and parameter.effect != "result":
            continue
        doc = parameter.doc if parameter else ""
        sentences.append(f"{block} is {_show(value)}, the paper's is {_show(paper_value)}{f': {doc}' if doc else ''}")
    return sentences


def _show(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list | tuple):
        return " and ".join(map(_show, value))
    return "none" if value is None else str(value)

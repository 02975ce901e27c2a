import sys
from types import ModuleType
from typing import Annotated, Literal

import pytest
from pydantic import Field

from gantoolkit.errors import PluginError, RecipeError
from gantoolkit.plugins import REGISTRIES, GeneratorBlock
from gantoolkit.registry.signature import check_parameters, read_parameters


def block(
    channels: int,
    *,
    count: Annotated[int, Field(ge=1)] = 9,
    share: float = 0.5,
    mode: Literal["a", "b"] = "a",
    pair: tuple[float, float] | None = None,
    inner: GeneratorBlock = "resnet",  # type: ignore[assignment]
) -> None:
    """A block.

    Args:
        count: The number.
    """


def test_keyword_only_parameters_are_the_schema() -> None:
    parameters = read_parameters(block)
    assert list(parameters) == ["count", "share", "mode", "pair", "inner"]
    assert parameters["inner"].slot == "generators"
    assert parameters["count"].doc == "The number."
    assert str(parameters["count"]) == "int, ≥ 1, default 9"


def test_defaults_are_filled_in_and_arrays_become_tuples() -> None:
    checked = check_parameters(block, {"pair": [1, 2.5], "share": 1}, "here")
    assert checked == {"count": 9, "share": 1.0, "mode": "a", "pair": (1.0, 2.5)}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"conut": 3}, "here: 'conut' is not a parameter; did you mean 'count'? (int, ≥ 1, default 9)"),
        ({"count": 0}, "here: 'count' cannot be 0; it takes int, ≥ 1, default 9"),
        ({"count": "3"}, "here: 'count' cannot be '3'; it takes int, ≥ 1, default 9"),
        ({"count": 3.5}, "here: 'count' cannot be 3.5; it takes int, ≥ 1, default 9"),
        ({"count": True}, "here: 'count' cannot be true; it takes int, ≥ 1, default 9"),
        ({"mode": "c"}, "here: 'mode' cannot be 'c'; it takes 'a' or 'b', default 'a'"),
    ],
)
def test_invalid_parameter_is_reported_with_a_remedy(values: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError) as error:
        check_parameters(block, values, "here")
    assert str(error.value) == message


def test_block_with_var_keyword_is_refused() -> None:
    def greedy(**anything: int) -> None: ...

    with pytest.raises(PluginError, match=r"\*\*anything would hide a misspelled parameter"):
        read_parameters(greedy)


@pytest.mark.parametrize("kind", [kind for kind in REGISTRIES if kind != "recipes"])
def test_every_parameter_of_every_built_in_block_is_documented(kind: str) -> None:
    for name in REGISTRIES[kind].names():
        for parameter in read_parameters(REGISTRIES[kind].get(name)).values():
            assert parameter.doc, f"{kind}/{name}: {parameter.name} has no line under Args"


def test_postponed_types_are_read_from_the_module_that_names_them() -> None:
    module = ModuleType("postponed")
    source = """
from __future__ import annotations
import functools
from dataclasses import dataclass
from typing import Annotated
from pydantic import Field

@dataclass
class Instance:
    scale: float = 1.0
    def __call__(self, images, *, count: Annotated[int, Field(ge=1)] = 2): ...

class New:
    def __new__(cls, *, count: Annotated[int, Field(ge=1)] = 2): ...
"""
    sys.modules["postponed"] = module
    try:
        exec(source, vars(module))
        for block in (module.Instance(), module.New):
            assert check_parameters(block, {}, "recipe") == {"count": 2}
            with pytest.raises(RecipeError, match="'count' cannot be 0"):
                check_parameters(block, {"count": 0}, "recipe")
    finally:
        del sys.modules["postponed"]

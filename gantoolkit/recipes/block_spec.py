"""A block as a recipe writes it, a name and parameters, and the two things done with it: check it, and make it."""

import functools
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict

from gantoolkit.errors import RecipeError
from gantoolkit.plugins import REGISTRIES
from gantoolkit.registry.signature import Parameter, check_parameters, read_parameters

__all__ = ["PYTHON_PREFIX", "BlockLike", "BlockSpec", "bind", "merge_field", "resolve"]

PYTHON_PREFIX = "python:"
"""Stands in a file where a class itself was given."""


class BlockSpec(BaseModel):
    """A block by name, with the parameters that differ from its defaults.

    Args:
        name: As in the registry, or `<distribution>:<name>`.
        parameters: Values for its keyword-only parameters; blocks inside it in any of the forms of `BlockLike`.

    >>> BlockSpec.of("resnet", blocks=6)
    BlockSpec(name='resnet', parameters={'blocks': 6}, target=None)
    >>> BlockSpec.of({"name": "resnet", "blocks": 6}).to_mapping()
    {'name': 'resnet', 'blocks': 6}
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str
    parameters: dict[str, Any] = {}

    target: Any = None
    """The class or function itself, where it was passed in place of a name; it cannot be written to a file."""

    @classmethod
    def of(cls, source: Any, /, **parameters: Any) -> "BlockSpec":
        """Make a block from a name, from a class or function itself, or from a table whose `name` is one of these.

        Raises:
            RecipeError: When `source` is none of these.
        """
        match source:
            case BlockSpec():
                return source.model_copy(update={"parameters": {**source.parameters, **parameters}})
            case str():
                return cls(name=source, parameters=parameters)
            case {"name": name, **given}:
                return cls.of(name, **{**given, **parameters})
            case _ if callable(source):
                name = getattr(source, "__qualname__", type(source).__qualname__)
                return cls(name=name, parameters=parameters, target=source)
        raise RecipeError(f"a block is a name, a table with a 'name', or a class; {source!r} is none of these")

    def to_mapping(self) -> dict[str, Any]:
        """The table that a recipe file holds."""
        inside = {name: _to_plain(value) for name, value in self.parameters.items()}
        return {"name": self.target or self.name, **inside}

    def load(self, kind: str) -> Callable[..., Any]:
        """Import the class or function behind the name.

        Raises:
            PluginError: As `Registry.get`.
            RecipeError: When the recipe was written to a file although it held the class itself.
        """
        if self.target is not None:
            return self.target
        if self.name.startswith(PYTHON_PREFIX):
            raise RecipeError(
                f"{kind}: '{self.name}' was passed as a Python object, which a file cannot hold; register it under a "
                f"name (@{kind}.register) before the run starts"
            )
        return REGISTRIES[kind].get(self.name)


BlockLike = Annotated[BlockSpec, BeforeValidator(BlockSpec.of)]
"""A field that takes a block in any form: `"unet"`, `{"name": "unet", "depth": 7}`, `BlockSpec.of(...)`, or a class."""


def resolve(kind: str, block: BlockSpec, where: str) -> BlockSpec:
    """Import a block, check every parameter, and write all its defaults out; blocks inside it likewise.

    Args:
        where: Path of the field that holds it, for messages: `cyclegan.generator`.

    Raises:
        PluginError: When a block cannot be had.
        RecipeError: At the first parameter that does not fit.
    """
    target = block.load(kind)
    label = where if where.rpartition(".")[2] == block.name else f"{where} ({block.name})"
    plain = check_parameters(target, block.parameters, label)
    full: dict[str, Any] = {}
    for name, parameter in read_parameters(target).items():
        if parameter.slot is None:
            full[name] = plain[name]
        else:
            full[name] = resolve(parameter.slot, _inner_block(parameter, block, label), f"{where}.{name}")
    return block.model_copy(update={"parameters": full})


def bind(kind: str, block: BlockSpec) -> Callable[..., Any]:
    """The factory of a resolved block: call it with what its system gives.

    A block inside it is bound likewise, so that it arrives as a factory too.
    """
    target = block.load(kind)
    parameters = read_parameters(target)
    keywords = {
        name: bind(slot, BlockSpec.of(value)) if (slot := parameters[name].slot) else value
        for name, value in block.parameters.items()
    }
    return functools.partial(target, **keywords)


def merge_field(table: dict[str, Any], path: list[str], value: Any, where: str) -> None:
    """Change one field of a table of blocks and values, in place.

    Naming a block replaces it whole; a table without a name, or a longer path, changes parameters of the block that is there.

    Args:
        path: The names that lead to the field: `["generator", "blocks"]`.
        where: What the table is called in messages.

    Raises:
        RecipeError: When a plain value stands in the way.
    """
    key, *rest = path
    here = table.get(key)
    if rest == ["name"]:
        table[key] = {"name": value}
    elif rest:
        if not isinstance(here, dict | str | None):
            raise RecipeError(f"{where}: '{key}' is a plain value, so '{'.'.join(path)}' cannot be set")
        table[key] = {"name": here} if isinstance(here, str) else dict(here or {})
        merge_field(table[key], rest, value, f"{where}.{key}")
    elif isinstance(value, Mapping) and "name" not in value and here is not None:
        for inner, inner_value in value.items():
            merge_field(table, [key, inner], inner_value, where)
    else:
        table[key] = value


def _inner_block(parameter: Parameter, block: BlockSpec, label: str) -> BlockSpec:
    if parameter.name in block.parameters:
        value = block.parameters[parameter.name]
        if not isinstance(value, Mapping) or "name" in value:
            try:
                return BlockSpec.of(value)
            except RecipeError as error:
                raise RecipeError(f"{label}: '{parameter.name}': {error}") from error
        if parameter.required:
            raise RecipeError(f"{label}: '{parameter.name}' names no block; add name = \"...\" ({parameter.slot})")
        return BlockSpec.of(parameter.default, **value)  # it changes parameters of the block that is there by default
    if parameter.required:
        raise RecipeError(f"{label}: '{parameter.name}' is missing ({parameter})")
    return BlockSpec.of(parameter.default)


def _to_plain(value: Any) -> Any:
    if isinstance(value, BlockSpec):
        return value.to_mapping()
    return list(value) if isinstance(value, tuple) else value

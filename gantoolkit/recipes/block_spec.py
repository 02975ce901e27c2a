"""The specification of a block in a recipe, a name and parameters: how it is checked, and how the block is built."""

import functools
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict

from gantoolkit.errors import RecipeError
from gantoolkit.plugins import REGISTRIES
from gantoolkit.registry.signature import Parameter, check_parameters, read_parameters

__all__ = ["PYTHON_PREFIX", "BlockLike", "BlockSpec", "bind", "merge_field", "resolve"]

PYTHON_PREFIX = "python:"
"""Prefix in a file of a block that was passed as a class."""


class BlockSpec(BaseModel):
    """A block by name, with the parameters that differ from its defaults.

    Args:
        name: The name in the registry, or `<distribution>:<name>`.
        parameters: Values of its keyword-only parameters; nested blocks in any form of `BlockLike`.

    >>> BlockSpec.of("resnet", blocks=6)
    BlockSpec(name='resnet', parameters={'blocks': 6}, target=None)
    >>> BlockSpec.of({"name": "resnet", "blocks": 6}).to_mapping()
    {'name': 'resnet', 'blocks': 6}
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str
    parameters: dict[str, Any] = {}

    target: Any = None
    """The class or function, if it was passed instead of a name; it cannot be written to a file."""

    @classmethod
    def of(cls, source: Any, /, **parameters: Any) -> "BlockSpec":
        """The specification of a name, of a class or function, or of a table whose `name` is one of these.

        Raises:
            RecipeError: When `source` is none of these.
        """
        match source:
            case BlockSpec():
                return source.model_copy(update={"parameters": {**source.parameters, **parameters}})
            case str():
                return cls(name=source, parameters=parameters)
            case {"name": name, **others}:
                return cls.of(name, **{**others, **parameters})
            case _ if callable(source):
                name = getattr(source, "__qualname__", type(source).__qualname__)
                return cls(name=name, parameters=parameters, target=source)
        raise RecipeError(f"a block is a name, a table with a 'name', or a class; {source!r} is none of these")

    def to_mapping(self) -> dict[str, Any]:
        """The table in a recipe file."""
        parameters = {name: _to_plain(value) for name, value in self.parameters.items()}
        return {"name": self.target or self.name, **parameters}

    def load(self, kind: str) -> Callable[..., Any]:
        """Import the class or function.

        Raises:
            PluginError: As for `Registry.get`.
            RecipeError: When the recipe comes from a file that could not hold the class itself.
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
    """Import a block, check every parameter, and fill in all defaults; the same for nested blocks.

    Args:
        where: The path of its field in messages: `cyclegan.generator`.

    Raises:
        PluginError: When a block cannot be loaded.
        RecipeError: For the first parameter that does not fit.
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
    """The factory of a resolved block: call it with the positional arguments of its kind. Nested blocks become factories
    too.
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

    Naming a block replaces it; a table without a name, or a longer path, changes parameters of the present block.

    Args:
        path: The path of the field: `["generator", "blocks"]`.
        where: The name of the table in messages.

    Raises:
        RecipeError: When the path leads through a plain value.
    """
    key, *rest = path
    present = table.get(key)
    if rest == ["name"]:
        table[key] = {"name": value}
    elif rest:
        if not isinstance(present, dict | str | None):
            raise RecipeError(f"{where}: '{key}' is a plain value, so '{'.'.join(path)}' cannot be set")
        table[key] = {"name": present} if isinstance(present, str) else dict(present or {})
        merge_field(table[key], rest, value, f"{where}.{key}")
    elif isinstance(value, Mapping) and "name" not in value and present is not None:
        for name, inner_value in value.items():
            merge_field(table, [key, name], inner_value, where)
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
            raise RecipeError(f"{label}: '{parameter.name}' has no name; add name = \"...\" (one of {parameter.slot})")
        return BlockSpec.of(parameter.default, **value)  # changes parameters of the default block
    if parameter.required:
        raise RecipeError(f"{label}: '{parameter.name}' is missing ({parameter})")
    return BlockSpec.of(parameter.default)


def _to_plain(value: Any) -> Any:
    if isinstance(value, BlockSpec):
        return value.to_mapping()
    return list(value) if isinstance(value, tuple) else value

"""A recipe: the typed, serializable description of a whole run. It holds no weights, and creating it does not import torch."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import tomli_w
from pydantic import BaseModel, ConfigDict, ValidationError

from gantoolkit.errors import GantoolkitError, RecipeError, closest_match
from gantoolkit.files.paths import user_path
from gantoolkit.files.toml import parse_toml, read_toml
from gantoolkit.plugins import REGISTRIES
from gantoolkit.recipes.block_spec import PYTHON_PREFIX, BlockLike, BlockSpec, merge_field, resolve
from gantoolkit.recipes.settings import INVALID_SETTINGS, DataSettings, TrainingSettings, read_fields
from gantoolkit.registry.signature import (
    Parameter,
    describe_problem,
    describe_type,
    document_parameters,
    read_parameters,
)

__all__ = ["Recipe"]


class Recipe(BaseModel):
    """A system with its blocks, data and training: every choice that decides the result.

    In files and in `swap`, the parameters of the system are at the top level, beside these fields.

    Args:
        name: The name of the recipe, in messages and reports.
        base: The recipe function that it started from, if any. Called without arguments, it returns its paper's settings.
        system: The system, with its blocks and weights as parameters.
        optimizer: Each phase has an optimizer of its own.
        scheduler: Factor on all learning rates, by epoch.
        initializer: Initializes the weights of every network.
        metric: Evaluates the run while it trains, if `training.evaluate_every` is not 0.
        data: Reading and augmentation of images.
        training: Length, batch size, and intervals.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str
    base: str = ""
    system: BlockLike
    optimizer: BlockLike = BlockSpec(name="adam")
    scheduler: BlockLike = BlockSpec(name="constant_then_linear")
    initializer: BlockLike = BlockSpec(name="normal")
    metric: BlockLike = BlockSpec(name="psnr")
    data: DataSettings = DataSettings()
    training: TrainingSettings = TrainingSettings()

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> "Recipe":
        """Create a recipe from a mapping as in a file; imports no block.

        Raises:
            RecipeError: When a field is missing, unknown or of the wrong type.
        """
        own = {key: value for key, value in mapping.items() if key in cls.model_fields}
        rest = {key: value for key, value in mapping.items() if key not in cls.model_fields}
        name = own.get("name") if isinstance(own.get("name"), str) else "recipe"
        for key in [key for key in ("system", *_BLOCK_FIELDS) if key in own]:
            try:
                own[key] = BlockSpec.of(own[key], **(rest if key == "system" else {}))
            except RecipeError as error:
                raise RecipeError(f"{name or 'recipe'}: '{key}': {error}") from error
        try:
            return cls.model_validate(own)
        except ValidationError as error:
            raise RecipeError(_explain(error, name or "recipe", cls)) from None

    @classmethod
    def from_toml(
        cls, source: str | Path, *, where: str | None = None, changes: Mapping[str, Any] | None = None
    ) -> "Recipe":
        """Read a recipe from a file or a string. `recipe = "cyclegan"` in it starts from that recipe function.

        Args:
            source: The file, or the text.
            where: The name of the source in messages.
            changes: Fields to change, as for `swap`; also arguments of the recipe function that the file starts from.

        Raises:
            RecipeError: When the file cannot be read, is not TOML, or is not a recipe.
        """
        source = user_path(source) if isinstance(source, Path) else source
        where = where or (str(source) if isinstance(source, Path) else "recipe")
        mapping = read_toml(source, where) if isinstance(source, Path) else parse_toml(source, where)
        base = mapping.pop("recipe", None)
        if base is None:
            if "system" not in mapping:
                raise RecipeError(
                    f'{where}: has neither recipe = "..." nor system = "..."; write recipe = "cyclegan" to start from it'
                )
            return cls.from_mapping({"name": where, **mapping}).swap(changes)
        if not isinstance(base, str):
            raise RecipeError(f'{where}: recipe = {base!r} is not a name; write recipe = "cyclegan"')
        try:
            return cls.from_base(base, mapping, changes or {})
        except GantoolkitError as error:
            raise type(error)(f"{where}: {error}") from error

    @classmethod
    def from_base(cls, base: str, *changes: Mapping[str, Any]) -> "Recipe":
        """What a recipe function returns, with changes; later ones take precedence.

        A change that is not a field is passed to the function if it is one of its arguments, such as `fidelity = "lua"`.

        Raises:
            PluginError: When there is no such function.
            RecipeError: When a change does not fit.
        """
        make = REGISTRIES["recipes"].get(base)
        names = getattr(make, "arguments", None)
        if names is None:  # a plain function
            fields = {*make().to_mapping(), *_SETTINGS}
            names = [name for name in inspect.signature(make).parameters if name not in fields]
        recipe = make(**{key: value for change in changes for key, value in change.items() if key in names})
        for change in changes:
            recipe = recipe.swap({key: value for key, value in change.items() if key not in names})
        return recipe

    def to_mapping(self) -> dict[str, Any]:
        """The mapping of a recipe file: the system's parameters at the top level, blocks as tables with a `name`."""
        system = self.system.to_mapping()
        blocks = {key: getattr(self, key).to_mapping() for key in _BLOCK_FIELDS}
        settings = {"data": self.data.model_dump(), "training": self.training.model_dump()}
        values = {"name": self.name, "base": self.base, "system": system.pop("name"), **system, **blocks, **settings}
        plain = {key: value for key, value in values.items() if not isinstance(value, dict)}
        return {**plain, **{key: value for key, value in values.items() if isinstance(value, dict)}}

    def to_toml(self) -> str:
        """The text of a recipe file; `Recipe.from_toml` restores it."""
        return tomli_w.dumps(_writable(self.to_mapping()))

    def swap(self, changes: Mapping[str, Any] | None = None, /, **more: Any) -> "Recipe":
        """A copy with some fields changed.

        Naming a block replaces it with all its parameters. A table without a name, or a dotted key, changes parameters of the
        present block.

        >>> from gantoolkit.recipes import cyclegan
        >>> recipe = cyclegan().swap({"generator.blocks": 6, "data.crop_size": 128}, cycle_weight=5.0)
        >>> recipe.system.parameters["generator"]
        {'name': 'resnet', 'blocks': 6}

        Raises:
            RecipeError: When a change does not fit.
        """
        mapping = self.to_mapping()
        for key, value in {**(changes or {}), **more}.items():
            if key.count(".") > _MAX_DOTS:
                raise RecipeError(f"{self.name}: '{key}' is not a field; no field is nested that deep")
            merge_field(mapping, key.split("."), value, self.name)
        return Recipe.from_mapping(mapping)

    def resolve(self) -> "Recipe":
        """A copy with every default of every block; imports the blocks and checks each parameter.

        Raises:
            PluginError: When a block cannot be loaded.
            RecipeError: When a parameter does not fit.
        """
        self._refuse_unknown(read_parameters(self.system.load("systems")))
        blocks = {kind: resolve(f"{kind}s", getattr(self, kind), f"{self.name}.{kind}") for kind in _BLOCK_FIELDS}
        return self.model_copy(update={"system": resolve("systems", self.system, self.name), **blocks})

    def check(self) -> "Recipe":
        """Check every parameter, and that all blocks fit together.

        The networks are built on the meta device and run on one crop, which finds sizes and numbers of channels that they do
        not accept.

        Returns:
            The resolved recipe.

        Raises:
            PluginError: When a block cannot be loaded.
            RecipeError: When something does not fit; the message names the field and what would be right.
        """
        from gantoolkit.recipes.building import check_shapes

        resolved = self.resolve()
        check_shapes(resolved)
        return resolved

    def diff(self, other: "Recipe") -> dict[str, tuple[Any, Any]]:
        """The fields that differ, `{path: (value, value in other)}`; None for a field that one of them does not have."""
        own, others = _flatten(self.resolve().to_mapping()), _flatten(other.resolve().to_mapping())
        paths = [path for path in {**own, **others} if path not in _LABELS and own.get(path) != others.get(path)]
        return {path: (own.get(path), others.get(path)) for path in paths}

    def find_parameter(self, path: str) -> Parameter | None:
        """The parameter at a dotted path of a resolved recipe, such as `generator.blocks`; None if there is none."""
        field, *names = path.split(".")
        if field in _SETTINGS:
            return read_fields(type(getattr(self, field))).get(".".join(names))
        if field in Recipe.model_fields and not names:
            return Parameter(field, Any, None, document_parameters(Recipe).get(field, ""))
        if field in _BLOCK_FIELDS:
            kind, block = f"{field}s", getattr(self, field)
        else:
            kind, block, names = "systems", self.system, [field, *names]
        for name in names[:-1]:
            kind = read_parameters(block.load(kind))[name].slot or kind
            block = block.parameters[name]
        return read_parameters(block.load(kind)).get(names[-1])

    def _refuse_unknown(self, known: Mapping[str, Parameter]) -> None:
        """Refuse a misspelled field of the recipe, which looks like a parameter of the system."""
        for clash in known.keys() & Recipe.model_fields.keys():
            raise RecipeError(
                f"system '{self.system.name}': its parameter '{clash}' has the name of a recipe field; rename it"
            )
        for name in self.system.parameters:
            if (
                name not in known
                and not closest_match(name, known)
                and (match := closest_match(name, Recipe.model_fields))
            ):
                raise RecipeError(f"{self.name}: '{name}' is not a field; did you mean '{match}'?")


_LABELS = ("name", "base")
"""Fields that have no effect on a run."""

_SETTINGS = ("data", "training")

_MAX_DOTS = 20

_BLOCK_FIELDS = ("optimizer", "scheduler", "initializer", "metric")


def _explain(error: ValidationError, name: str, model: type[BaseModel]) -> str:
    problem = error.errors()[0]
    *parents, field = [str(part) for part in problem["loc"]] or [""]
    holder: Any = model
    for parent in parents:
        holder = holder.model_fields[parent].annotation
    where = ".".join([name, *parents])
    fields = getattr(holder, "model_fields", {})
    if problem["type"] == INVALID_SETTINGS:
        return f"{'.'.join([where, field])}: {problem['msg']}"
    match problem["type"]:
        case "extra_forbidden":
            match = closest_match(field, fields)
            known = f"did you mean '{match}'?" if match else f"known: {', '.join(fields)}"
            return f"{where}: '{field}' is not a field; {known}"
        case "missing":
            return f"{where}: '{field}' is missing"
    if (
        field in fields
        and fields[field].annotation is not None
        and not hasattr(fields[field].annotation, "model_fields")
    ):
        info = fields[field]
        kind = describe_type(Annotated[info.annotation, info])  # type: ignore[valid-type]
        default = "" if info.is_required() else f", default {info.default!r}"
        return f"{where}: '{field}' cannot be {problem['input']!r}; it takes {kind}{default}"
    return f"{'.'.join([where, field])}: {describe_problem(problem)}"


def _flatten(mapping: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in mapping.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _writable(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """A mapping that TOML can hold: it has no null, so a parameter that is None is left out, and no classes."""
    table: dict[str, Any] = {}
    for key, value in mapping.items():
        if isinstance(value, Mapping):
            table[key] = _writable(value)
        elif callable(value):
            table[key] = f"{PYTHON_PREFIX}{value.__qualname__}"
        elif value is not None:
            table[key] = value
    return table

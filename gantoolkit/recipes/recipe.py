"""A recipe: the typed, serializable description of a whole run. It holds no weights and imports no torch until asked to."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import tomli_w
from pydantic import BaseModel, ConfigDict, ValidationError

from gantoolkit import plugins
from gantoolkit.errors import GantoolkitError, RecipeError, closest_match
from gantoolkit.files.toml import parse_toml, read_toml
from gantoolkit.recipes.block_spec import PYTHON_PREFIX, BlockLike, BlockSpec, merge_field, resolve
from gantoolkit.recipes.settings import DataSettings, TrainingSettings, read_fields
from gantoolkit.registry.signature import (
    Parameter,
    describe_problem,
    describe_type,
    document_parameters,
    read_parameters,
)

__all__ = ["Recipe"]


class Recipe(BaseModel):
    """A system, its blocks, data and training, with every choice that makes the result what it is.

    In files and in `swap` the system's own parameters stand at the top level, beside these fields.

    Args:
        name: What the recipe is called, in messages and reports.
        base: The recipe function that it started from, if any: called without arguments, that gives its paper's settings.
        system: Which system, with its blocks and weights as parameters.
        optimizer: Made anew for each phase.
        scheduler: Factor on all learning rates, by epoch.
        initializer: Draws the first weights of every network.
        metric: What the run is measured by while it trains, if `training.evaluate_every` asks for that.
        data: Reading and augmentation.
        training: Length and rhythm.
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
        """Make a recipe from the form that files have, without importing any block.

        Raises:
            RecipeError: When a field is missing, misspelled or of the wrong type.
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
        """Read a recipe file, or a string that holds one. `recipe = "cyclegan"` starts from that recipe.

        Args:
            source: The file, or the text.
            where: What to call it in messages.
            changes: Fields that are to differ, as for `swap`; also arguments of the recipe that the file starts from.

        Raises:
            RecipeError: When the file cannot be read, is no TOML, or holds something that is no recipe.
        """
        where = where or (str(source) if isinstance(source, Path) else "recipe")
        mapping = read_toml(source, where) if isinstance(source, Path) else parse_toml(source, where)
        base = mapping.pop("recipe", None)
        if base is None:
            if "system" not in mapping:
                raise RecipeError(f'{where}: says neither recipe = "..." to start from nor system = "..."')
            return cls.from_mapping({"name": where, **mapping}).swap(changes)
        if not isinstance(base, str):
            raise RecipeError(f'{where}: recipe = {base!r} is no name; write recipe = "cyclegan"')
        try:
            return cls.from_base(base, mapping, changes or {})
        except GantoolkitError as error:
            raise type(error)(f"{where}: {error}") from error

    @classmethod
    def from_base(cls, base: str, *changes: Mapping[str, Any]) -> "Recipe":
        """What a recipe function returns, with changes, the later ones over the earlier.

        A change that names no field is an argument of that function, if it has one of that name: `fidelity = "lua"`.

        Raises:
            PluginError: When there is no such function.
            RecipeError: When a change does not fit.
        """
        make = plugins.recipes.get(base)
        own = make().to_mapping()
        takes = getattr(make, "arguments", None)
        if takes is None:  # a plain function
            takes = [name for name in inspect.signature(make).parameters if name not in own and name not in _SETTINGS]
        arguments = {key: value for given in changes for key, value in given.items() if key in takes}
        recipe = make(**arguments)
        for given in changes:
            recipe = recipe.swap({key: value for key, value in given.items() if key not in takes})
        return recipe

    def to_mapping(self) -> dict[str, Any]:
        """The form that files have: the system's parameters at the top level, blocks as tables with a `name`."""
        system = self.system.to_mapping()
        blocks = {key: getattr(self, key).to_mapping() for key in _BLOCK_FIELDS}
        settings = {"data": self.data.model_dump(), "training": self.training.model_dump()}
        values = {"name": self.name, "base": self.base, "system": system.pop("name"), **system, **blocks, **settings}
        plain = {key: value for key, value in values.items() if not isinstance(value, dict)}
        return {**plain, **{key: value for key, value in values.items() if isinstance(value, dict)}}

    def to_toml(self) -> str:
        """The recipe as a file's text; `Recipe.from_toml` gives it back."""
        return tomli_w.dumps(_writable(self.to_mapping()))

    def swap(self, changes: Mapping[str, Any] | None = None, /, **more: Any) -> "Recipe":
        """A copy in which some fields differ.

        Naming a block replaces it whole, parameters included; a table without a name, or a dotted key, changes
        parameters of the block that is there.

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
                raise RecipeError(f"{self.name}: '{key}' is no field; none lies that deep")
            merge_field(mapping, key.split("."), value, self.name)
        return Recipe.from_mapping(mapping)

    def resolve(self) -> "Recipe":
        """A copy with every default of every block written out; imports the blocks and checks each parameter.

        Raises:
            PluginError: When a block cannot be had.
            RecipeError: When a parameter does not fit.
        """
        self._refuse_unknown(read_parameters(self.system.load("systems")))
        found = {kind: resolve(f"{kind}s", getattr(self, kind), f"{self.name}.{kind}") for kind in _BLOCK_FIELDS}
        return self.model_copy(update={"system": resolve("systems", self.system, self.name), **found})

    def check(self) -> "Recipe":
        """Import the blocks, check every parameter and that they fit together; allocates nothing.

        The networks are built without memory and shown one crop, so that a size or a number of channels that one of
        them cannot take is found here.

        Returns:
            The resolved recipe.

        Raises:
            PluginError: When a block cannot be had.
            RecipeError: When something does not fit, naming the field and the cure.
        """
        from gantoolkit.recipes.building import check_shapes

        resolved = self.resolve()
        check_shapes(resolved)
        return resolved

    def diff(self, other: "Recipe") -> dict[str, tuple[Any, Any]]:
        """Field by field, what is different: `{path: (here, there)}`; None stands for a field that is not there."""
        here, there = _flatten(self.resolve().to_mapping()), _flatten(other.resolve().to_mapping())
        paths = [path for path in {**here, **there} if path not in _LABELS and here.get(path) != there.get(path)]
        return {path: (here.get(path), there.get(path)) for path in paths}

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
        """A misspelled field looks like a parameter of the system; the correction may be a field of the recipe."""
        for clash in known.keys() & Recipe.model_fields.keys():
            raise RecipeError(
                f"system '{self.system.name}': its parameter '{clash}' is a field of every recipe; rename it"
            )
        for name in self.system.parameters:
            if (
                name not in known
                and not closest_match(name, known)
                and (meant := closest_match(name, Recipe.model_fields))
            ):
                raise RecipeError(f"{self.name}: '{name}' is no field; did you mean '{meant}'?")


_LABELS = ("name", "base")
"""Fields that change nothing."""

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
    match problem["type"]:
        case "extra_forbidden":
            meant = closest_match(field, fields)
            known = f"did you mean '{meant}'?" if meant else f"known: {', '.join(fields)}"
            return f"{where}: '{field}' is no field; {known}"
        case "missing":
            return f"{where}: '{field}' is missing"
        case "crop" | "range":
            return f"{'.'.join([where, field])}: {problem['msg']}"
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
    """TOML has no null: a parameter that is none is left out, as its default says none. Nor has it classes."""
    written: dict[str, Any] = {}
    for key, value in mapping.items():
        if isinstance(value, Mapping):
            written[key] = _writable(value)
        elif callable(value):
            written[key] = f"{PYTHON_PREFIX}{value.__qualname__}"
        elif value is not None:
            written[key] = value
    return written

"""A block's signature is its schema: a recipe sets the keyword-only parameters, a system passes the positional ones."""

import functools
import inspect
import json
import sys
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import docstring_parser
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from gantoolkit.errors import PluginError, RecipeError, closest_match

__all__ = [
    "Effect",
    "Parameter",
    "Slot",
    "check_parameters",
    "describe_problem",
    "describe_type",
    "document_parameters",
    "read_parameters",
]


@dataclass(frozen=True)
class Slot:
    """Marks a parameter that takes another block: `Annotated[..., Slot("generators")]`."""

    kind: str


@dataclass(frozen=True)
class Effect:
    """Marks a parameter or a field of the settings whose value does not decide what a run learns.

    Args:
        kind: `none` if no bit of any weight depends on it, so that it may change when a run resumes; `chance` if weights
            depend on it, but only as they depend on a seed.
    """

    kind: Literal["none", "chance"]


@dataclass(frozen=True)
class Parameter:
    """A keyword-only parameter of a block, or a field of the settings."""

    name: str
    annotation: Any
    default: Any
    doc: str

    @property
    def required(self) -> bool:
        return self.default is inspect.Parameter.empty

    @property
    def slot(self) -> str | None:
        """The kind of block that the parameter takes; None for a plain value."""
        return next((mark.kind for mark in _metadata(self.annotation) if isinstance(mark, Slot)), None)

    @property
    def effect(self) -> str:
        """What the value affects: `none` or `chance` as in `Effect`, else `result`."""
        return next((mark.kind for mark in _metadata(self.annotation) if isinstance(mark, Effect)), "result")

    @functools.cached_property
    def adapter(self) -> TypeAdapter[Any]:
        """Validates a value."""
        return TypeAdapter(self.annotation, config=ConfigDict(strict=True))

    def __str__(self) -> str:
        parts = [f"one of {self.slot}" if self.slot else describe_type(self.annotation)]
        parts.append("required" if self.required else f"default {_show(self.default)}")
        return ", ".join(parts)


def read_parameters(block: Callable[..., Any]) -> Mapping[str, Parameter]:
    """The keyword-only parameters of a class or function, in order.

    Raises:
        PluginError: When a parameter has no type, or the block accepts any keyword (`**kwargs`).
    """
    return _read_once(block) if isinstance(block, Hashable) else _read(block)


def _read(block: Callable[..., Any]) -> Mapping[str, Parameter]:
    name = getattr(block, "__qualname__", repr(block))
    docs = document_parameters(block)
    signature = inspect.signature(block).parameters.values()
    keywords = [parameter for parameter in signature if parameter.kind is inspect.Parameter.KEYWORD_ONLY]
    for parameter in signature:
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            raise PluginError(f"{name}: **{parameter.name} would hide a misspelled parameter; name each parameter")
    for parameter in keywords:
        if parameter.annotation is inspect.Parameter.empty:
            raise PluginError(f"{name}: parameter '{parameter.name}' has no type; write '{parameter.name}: <type>'")
    types = _evaluate({parameter.name: parameter.annotation for parameter in keywords}, block)
    return {
        parameter.name: Parameter(
            parameter.name, types[parameter.name], parameter.default, docs.get(parameter.name, "")
        )
        for parameter in keywords
    }


_read_once = functools.lru_cache(maxsize=1024)(_read)


def check_parameters(block: Callable[..., Any], values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Check values against a block's signature and fill in the defaults; slots are skipped.

    Args:
        where: The name of the block in messages, such as `cyclegan.generator (resnet)`.

    Raises:
        RecipeError: For the first value that is unknown, missing, of the wrong type or out of range.
    """
    parameters = read_parameters(block)
    for name in values:
        if name not in parameters:
            raise RecipeError(f"{where}: {_unknown(name, parameters)}")
    checked: dict[str, Any] = {}
    for name, parameter in parameters.items():
        if parameter.slot:
            continue
        if name in values:
            checked[name] = _check(parameter, values[name], where)
        elif parameter.required:
            raise RecipeError(f"{where}: '{name}' is missing ({parameter})")
        else:
            checked[name] = parameter.default
    return checked


def describe_type(annotation: Any) -> str:
    """A readable description of a type.

    >>> from pydantic import Field
    >>> describe_type(Annotated[int, Field(ge=1)])
    'int, ≥ 1'
    >>> describe_type(Literal["reflect", "zero"])
    "'reflect' or 'zero'"
    >>> describe_type(Annotated[int, Field(ge=1)] | None)
    'int ≥ 1 or none'
    """
    return _describe(annotation, before_bound=", ")


def _describe(annotation: Any, before_bound: str = " ") -> str:
    inside = get_args(annotation)
    if get_origin(annotation) is Annotated:
        bounds = [_describe_bound(mark) for mark in _metadata(annotation)]
        return before_bound.join([_describe(inside[0]), *filter(None, bounds)])
    if get_origin(annotation) is Literal:
        return " or ".join(_show(value) for value in inside)
    if get_origin(annotation) is None or get_origin(annotation) is Callable:
        return getattr(annotation, "__name__", str(annotation))
    if get_origin(annotation) in (Union, UnionType):
        return " or ".join("none" if part is type(None) else _describe(part) for part in inside)
    return f"{get_origin(annotation).__name__}[{', '.join('…' if part is ... else _describe(part) for part in inside)}]"


def describe_problem(error: ErrorDetails) -> str:
    """An error of pydantic in one clause."""
    return f"{_show(error['input'])} is not accepted: {error['msg'][0].lower()}{error['msg'][1:]}"


def _check(parameter: Parameter, value: Any, where: str) -> Any:
    if value == "none" and type(None) in get_args(parameter.annotation):
        return None  # TOML has no null
    adapter = parameter.adapter
    try:
        # JSON mode is strict about numbers and strings, but accepts an array for a tuple (TOML has only arrays).
        return adapter.validate_json(json.dumps(value))
    except TypeError as error:
        raise RecipeError(f"{where}: '{parameter.name}' cannot be {value!r}; it takes {parameter}") from error
    except ValidationError:
        raise RecipeError(f"{where}: '{parameter.name}' cannot be {_show(value)}; it takes {parameter}") from None


def _unknown(name: str, parameters: Mapping[str, Parameter]) -> str:
    if not parameters:
        return f"'{name}' is not a parameter; it takes none"
    match = closest_match(name, parameters)
    if match is None:
        return f"'{name}' is not a parameter; it takes {', '.join(parameters)}"
    return f"'{name}' is not a parameter; did you mean '{match}'? ({parameters[match]})"


def document_parameters(block: Callable[..., Any]) -> dict[str, str]:
    """The documentation of each argument in the docstring of a class or function, on one line; subclasses inherit it."""
    documented = [*reversed(inspect.getmro(block)[:-1])] if inspect.isclass(block) else [block]
    texts = [inspect.getdoc(part) for part in (*documented, getattr(block, "__init__", None))]
    parsed = [docstring_parser.parse(text) for text in texts if text]
    return {p.arg_name: " ".join((p.description or "").split()) for text in parsed for p in text.params}


def _evaluate(annotations: Mapping[str, Any], block: Callable[..., Any]) -> dict[str, Any]:
    """The types that annotations name, which are strings where a module postpones their evaluation."""
    source: Any = inspect.unwrap(block)
    source = inspect.unwrap(source.__init__) if inspect.isclass(source) else source
    # An instance and a class without an `__init__` of its own have no `__globals__`.
    names = getattr(source, "__globals__", None) or vars(sys.modules[block.__module__])

    def holder() -> None: ...

    # Of these parameters only: the types of positional ones are often imported for type checkers alone. And not with
    # typing.get_type_hints, which would also evaluate the names inside `GeneratorBlock` and its like.
    holder.__annotations__ = dict(annotations)
    try:
        return inspect.get_annotations(holder, globals=names, eval_str=True)
    except Exception as error:
        raise PluginError(f"{getattr(block, '__qualname__', block)}: a type cannot be evaluated: {error}") from error


def _metadata(annotation: Any) -> tuple[Any, ...]:
    marks = getattr(annotation, "__metadata__", ())
    return tuple(inner for mark in marks for inner in (getattr(mark, "metadata", None) or [mark]))


_SIGNS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<", "multiple_of": "a multiple of"}


def _describe_bound(mark: Any) -> str:
    return ", ".join(f"{sign} {_show(getattr(mark, key))}" for key, sign in _SIGNS.items() if hasattr(mark, key))


def _show(value: Any) -> str:
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else repr(value)

"""Named blocks from any installed distribution, found by entry points and imported only when they are used."""

import functools
import importlib.metadata
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from gantoolkit.errors import PluginError, did_you_mean

__all__ = ["API_VERSION", "Entry", "Registry", "find_unknown_kinds"]

API_VERSION = 1
"""Version of the plugin protocols; it is part of every entry-point group, so that it is read without importing."""

Adapter = Callable[[Any], Any]
"""Takes a block that was made for an older version of its protocol, returns one that keeps to the present version."""

SESSION = "this session"
"""Stands for the distribution of blocks that were registered by a decorator in the running program."""

Block = TypeVar("Block", bound=Callable[..., Any])

_OWN_DISTRIBUTION = "gantoolkit"
_SWITCH = "GANTOOLKIT_PLUGINS"
_GROUP = re.compile(r"gantoolkit\.v(?P<version>\d+)\.(?P<kind>\w+)")


@dataclass(frozen=True)
class Entry:
    """One offer of a block: who offers it under which name. Nothing is imported until `load`."""

    kind: str
    name: str
    distribution: str
    version: str
    target: str
    load_target: Callable[[], Any] = field(compare=False, repr=False)
    api_version: int = API_VERSION
    adapter: Adapter | None = field(default=None, compare=False, repr=False)

    @property
    def qualified_name(self) -> str:
        return f"{self.distribution}:{self.name}"

    def load(self) -> Any:
        """Import the block.

        Raises:
            PluginError: When it is made for another protocol version, its import fails, or it is no class or function.
        """
        if self.api_version != API_VERSION and self.adapter is None:
            late = "upgrade gantoolkit" if self.api_version > API_VERSION else f"upgrade {self.distribution}"
            raise PluginError(
                f"{self.kind}: '{self.name}' from {self.distribution} is made for plugin API v{self.api_version}, "
                f"this gantoolkit speaks v{API_VERSION}; {late}"
            )
        try:
            block = self.load_target()
        except (Exception, SystemExit) as error:  # a plugin may do anything while it is imported, also sys.exit
            reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            raise PluginError(
                f"{self.kind}: '{self.name}' from {self.distribution} {self.version} cannot be loaded "
                f"({self.target}): {reason}"
            ) from error
        if not callable(block):
            raise PluginError(
                f"{self.kind}: '{self.name}' from {self.distribution} {self.version} ({self.target}) is a "
                f"{type(block).__name__}; a class or a function is needed"
            )
        return block if self.adapter is None else self.adapter(block)


class Registry:
    """The blocks of one kind, by name.

    Listing imports nothing; getting a name imports that one block. Two distributions that offer one name are an error
    when that name is asked for, never a silent choice.

    Args:
        kind: What is registered, in the plural, such as `"generators"`; the entry-point group is
            `gantoolkit.v1.<kind>`.
        adapters: By an older version of the protocol, what makes its blocks fit the present one; blocks of other versions
            are refused.
        find_entry_points: Where entry points come from; tests give their own.

    >>> stripes = Registry("patterns", find_entry_points=lambda: [])
    >>> @stripes.register("stripes")
    ... def make_stripes(*, width: int = 3): ...
    >>> stripes.names()
    ['stripes']
    >>> stripes.get("strips")
    Traceback (most recent call last):
    gantoolkit.errors.PluginError: patterns: no 'strips'. Did you mean 'stripes'? Known: stripes
    """

    def __init__(
        self,
        kind: str,
        *,
        adapters: Mapping[int, Adapter] | None = None,
        find_entry_points: Callable[[], Iterable[importlib.metadata.EntryPoint]] | None = None,
    ) -> None:
        self.kind = kind
        self._adapters = adapters or {}
        self._find_entry_points = find_entry_points or _installed_entry_points
        self._session: dict[str, Entry] = {}

    def register(self, name: str, *, override: bool = False) -> Callable[[Block], Block]:
        """Offer a class or function under `name` for as long as this program runs (a notebook, a test).

        Raises:
            PluginError: When the name is taken, unless `override` is true.
        """

        def decorate(block: Block) -> Block:
            taken = [entry.distribution for entry in self.entries() if entry.name == name]
            if taken and not override:
                raise PluginError(
                    f"{self.kind}: '{name}' is offered by {taken[0]} already; choose another name, or pass override=True"
                )
            target = f"{block.__module__}:{block.__qualname__}"
            self._session[name] = Entry(self.kind, name, SESSION, "", target, lambda: block)
            return block

        return decorate

    def entries(self) -> list[Entry]:
        """Every offer that is switched on, sorted by name and distribution; imports nothing."""
        allowed = _allowed_distributions()
        offers = dict.fromkeys(
            entry for entry in self._installed_entries() if allowed is None or entry.distribution in allowed
        )
        shadowed = [entry for entry in offers if entry.name not in self._session]
        return sorted([*shadowed, *self._session.values()], key=lambda entry: (entry.name, entry.distribution))

    def names(self) -> list[str]:
        """The known names, sorted; imports nothing."""
        return sorted({entry.name for entry in self.entries()})

    def find(self, name: str) -> Entry:
        """The one offer behind `name`, which may be written `<distribution>:<name>`; imports nothing.

        Raises:
            PluginError: When nobody offers the name, or more than one distribution does.
        """
        distribution, _, short = name.rpartition(":")
        entries = self.entries()
        found = [entry for entry in entries if entry.name == short and distribution in ("", entry.distribution)]
        current = [entry for entry in found if entry.api_version == API_VERSION]
        found = current or found
        if len(found) == 1:
            return found[0]
        if found:
            offering = _join([entry.distribution for entry in found])
            raise PluginError(f"{self.kind}: '{short}' is offered by {offering}; write it as '<package>:{short}'")
        if hidden := self.hidden(name):
            offering = _join([entry.distribution for entry in hidden])
            raise PluginError(
                f"{self.kind}: '{name}' is offered by {offering}, which GANTOOLKIT_PLUGINS={os.environ[_SWITCH]} leaves out"
            )
        names = [entry.qualified_name for entry in entries] if distribution else self.names()
        known = ", ".join(names) or "none"
        raise PluginError(f"{self.kind}: no '{name}'.{did_you_mean(name, names)} Known: {known}")

    def get(self, name: str) -> Any:
        """Import and return the block behind `name`.

        Raises:
            PluginError: As `find`, and when the block cannot be loaded.
        """
        return self.find(name).load()

    def hidden(self, name: str) -> list[Entry]:
        """The offers behind `name` that GANTOOLKIT_PLUGINS switches off."""
        allowed = _allowed_distributions()
        offers = [entry for entry in self._installed_entries() if name in (entry.name, entry.qualified_name)]
        return [entry for entry in offers if allowed is not None and entry.distribution not in allowed]

    def __contains__(self, name: str) -> bool:
        return any(name in (entry.name, entry.qualified_name) for entry in self.entries())

    def _installed_entries(self) -> Iterator[Entry]:
        for point in self._find_entry_points():
            kind, api_version = _read_group(point.group)
            if kind == self.kind:
                yield _make_entry(point, kind, api_version, self._adapters.get(api_version))


def find_unknown_kinds(known: Iterable[str]) -> list[Entry]:
    """What is offered in groups of ours for kinds that do not exist: a misspelled group, or a plugin for a later version."""
    kinds, allowed = set(known), _allowed_distributions()
    offers = [(point, *_read_group(point.group)) for point in _installed_entry_points()]
    entries = [_make_entry(point, kind, version, None) for point, kind, version in offers if kind not in kinds]
    return [entry for entry in entries if allowed is None or entry.distribution in allowed]


@functools.cache
def _installed_entry_points() -> tuple[importlib.metadata.EntryPoint, ...]:
    # One scan of the installed distributions a process: it reads files, and the answer cannot change under us.
    points: dict[str, list[importlib.metadata.EntryPoint]] = {}
    for distribution in importlib.metadata.distributions():
        ours = [point for point in distribution.entry_points if point.group.startswith("gantoolkit.")]
        if ours:  # where a distribution is on the path twice, Python imports the first
            points.setdefault(_normalize(distribution.name), ours)
    return tuple(point for ours in points.values() for point in ours)


def _read_group(group: str) -> tuple[str, int]:
    """The kind and the protocol's version that a group is named after; a group of no version has version 0."""
    found = _GROUP.fullmatch(group)
    return (found["kind"], int(found["version"])) if found else (group.removeprefix("gantoolkit."), 0)


def _make_entry(point: importlib.metadata.EntryPoint, kind: str, api_version: int, adapter: Adapter | None) -> Entry:
    # An entry point made by hand, without a distribution, can only come from a test.
    distribution, version = (_normalize(point.dist.name), point.dist.version) if point.dist else ("unknown", "")
    return Entry(kind, point.name, distribution, version, point.value, point.load, api_version, adapter)


def _allowed_distributions() -> set[str] | None:
    """The distributions that GANTOOLKIT_PLUGINS lets in; None lets in all."""
    setting = os.environ.get(_SWITCH)
    if setting is None:
        return None
    listed = set() if setting.strip() == "0" else {_normalize(name) for name in setting.split(",") if name.strip()}
    return listed | {_OWN_DISTRIBUTION}


def _normalize(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def _join(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)

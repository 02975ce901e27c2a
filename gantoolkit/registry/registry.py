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
"""Version of the plugin protocols. It is part of every entry-point group, so that it can be read without an import."""

Adapter = Callable[[Any], Any]
"""Turns a block for an older version of its protocol into one for the present version."""

SESSION = "this session"
"""The distribution of blocks that a decorator registered in the running program."""

Block = TypeVar("Block", bound=Callable[..., Any])

_OWN_DISTRIBUTION = "gantoolkit"
_SWITCH = "GANTOOLKIT_PLUGINS"
_GROUP = re.compile(r"gantoolkit\.v(?P<version>\d+)\.(?P<kind>\w+)")


@dataclass(frozen=True)
class Entry:
    """A block that a distribution offers under a name. Nothing is imported until `load`."""

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
            PluginError: When it is for another protocol version, its import fails, or it is not a class or function.
        """
        if self.api_version != API_VERSION and self.adapter is None:
            late = "upgrade gantoolkit" if self.api_version > API_VERSION else f"upgrade {self.distribution}"
            raise PluginError(
                f"{self.kind}: '{self.name}' from {self.distribution} is for plugin API v{self.api_version}, "
                f"this gantoolkit has v{API_VERSION}; {late}"
            )
        try:
            block = self.load_target()
        except (Exception, SystemExit) as error:  # importing a plugin runs any code, also sys.exit
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

    Listing imports nothing; getting a name imports that block only. If two distributions offer one name, getting it is an
    error, never a silent choice.

    Args:
        kind: The kind of block in the plural, such as `"generators"`; the entry-point group is `gantoolkit.v1.<kind>`.
        adapters: Adapters by older version of the protocol; blocks of other versions are refused.
        find_entry_points: The source of entry points; for tests.

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
        """Register a class or function under `name` in the running program (a notebook, a test).

        Raises:
            PluginError: When the name is taken, unless `override` is true.
        """

        def decorate(block: Block) -> Block:
            owners = [entry.distribution for entry in self.entries() if entry.name == name]
            if owners and not override:
                raise PluginError(
                    f"{self.kind}: '{name}' is already offered by {owners[0]}; choose another name, or pass override=True"
                )
            target = f"{block.__module__}:{block.__qualname__}"
            self._session[name] = Entry(self.kind, name, SESSION, "", target, lambda: block)
            return block

        return decorate

    def entries(self) -> list[Entry]:
        """All enabled entries, sorted by name and distribution; imports nothing."""
        allowed = _allowed_distributions()
        installed = dict.fromkeys(
            entry for entry in self._installed_entries() if allowed is None or entry.distribution in allowed
        )
        visible = [entry for entry in installed if entry.name not in self._session]
        return sorted([*visible, *self._session.values()], key=lambda entry: (entry.name, entry.distribution))

    def names(self) -> list[str]:
        """The known names, sorted; imports nothing."""
        return sorted({entry.name for entry in self.entries()})

    def find(self, name: str) -> Entry:
        """The entry of `name`, which may be written `<distribution>:<name>`; imports nothing.

        Raises:
            PluginError: When no distribution offers the name, or several do.
        """
        distribution, _, short = name.rpartition(":")
        entries = self.entries()
        matches = [entry for entry in entries if entry.name == short and distribution in ("", entry.distribution)]
        matches = [entry for entry in matches if entry.api_version == API_VERSION] or matches
        if len(matches) == 1:
            return matches[0]
        if matches:
            owners = _join([entry.distribution for entry in matches])
            raise PluginError(f"{self.kind}: '{short}' is offered by {owners}; write it as '<package>:{short}'")
        if hidden := self.hidden(name):
            owners = _join([entry.distribution for entry in hidden])
            raise PluginError(
                f"{self.kind}: '{name}' is offered by {owners}, which GANTOOLKIT_PLUGINS={os.environ[_SWITCH]} excludes"
            )
        names = [entry.qualified_name for entry in entries] if distribution else self.names()
        known = ", ".join(names) or "none"
        raise PluginError(f"{self.kind}: no '{name}'.{did_you_mean(name, names)} Known: {known}")

    def get(self, name: str) -> Any:
        """Import and return the block of that name.

        Raises:
            PluginError: As for `find`, and when the block cannot be loaded.
        """
        return self.find(name).load()

    def hidden(self, name: str) -> list[Entry]:
        """The entries of `name` that GANTOOLKIT_PLUGINS disables."""
        allowed = _allowed_distributions()
        entries = [entry for entry in self._installed_entries() if name in (entry.name, entry.qualified_name)]
        return [entry for entry in entries if allowed is not None and entry.distribution not in allowed]

    def __contains__(self, name: str) -> bool:
        return any(name in (entry.name, entry.qualified_name) for entry in self.entries())

    def _installed_entries(self) -> Iterator[Entry]:
        for point in self._find_entry_points():
            kind, api_version = _read_group(point.group)
            if kind == self.kind:
                yield _make_entry(point, kind, api_version, self._adapters.get(api_version))


def find_unknown_kinds(known: Iterable[str]) -> list[Entry]:
    """Entries in `gantoolkit` groups of unknown kinds: a misspelled group, or a plugin for a later version."""
    kinds, allowed = set(known), _allowed_distributions()
    points = [(point, *_read_group(point.group)) for point in _installed_entry_points()]
    entries = [_make_entry(point, kind, version, None) for point, kind, version in points if kind not in kinds]
    return [entry for entry in entries if allowed is None or entry.distribution in allowed]


@functools.cache
def _installed_entry_points() -> tuple[importlib.metadata.EntryPoint, ...]:
    # Once per process: the scan reads files of every installed distribution.
    points: dict[str, list[importlib.metadata.EntryPoint]] = {}
    for distribution in importlib.metadata.distributions():
        own = [point for point in distribution.entry_points if point.group.startswith("gantoolkit.")]
        if own:  # if a distribution is on the path twice, Python imports the first
            points.setdefault(_normalize(distribution.name), own)
    return tuple(point for own in points.values() for point in own)


def _read_group(group: str) -> tuple[str, int]:
    """The kind and the protocol version in the name of a group; version 0 if it has none."""
    match = _GROUP.fullmatch(group)
    return (match["kind"], int(match["version"])) if match else (group.removeprefix("gantoolkit."), 0)


def _make_entry(point: importlib.metadata.EntryPoint, kind: str, api_version: int, adapter: Adapter | None) -> Entry:
    # Entry points without a distribution come from tests.
    distribution, version = (_normalize(point.dist.name), point.dist.version) if point.dist else ("unknown", "")
    return Entry(kind, point.name, distribution, version, point.value, point.load, api_version, adapter)


def _allowed_distributions() -> set[str] | None:
    """The distributions that GANTOOLKIT_PLUGINS allows; None allows all."""
    setting = os.environ.get(_SWITCH)
    if setting is None:
        return None
    listed = set() if setting.strip() == "0" else {_normalize(name) for name in setting.split(",") if name.strip()}
    return listed | {_OWN_DISTRIBUTION}


def _normalize(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def _join(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)

import importlib.metadata
from collections.abc import Iterable
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from gantoolkit.errors import PluginError
from gantoolkit.plugins import REGISTRIES
from gantoolkit.registry.registry import SESSION, Registry


@pytest.fixture(autouse=True)
def _all_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GANTOOLKIT_PLUGINS", raising=False)


@dataclass
class Offer:
    """An entry point with the interface of importlib.metadata, of a distribution that is not installed."""

    name: str
    value: str = "gantoolkit.blocks.schedulers:Constant"
    distribution: str = "acme-blocks"
    group: str = "gantoolkit.v1.generators"

    @property
    def dist(self) -> SimpleNamespace:
        return SimpleNamespace(name=self.distribution, version="1.0")

    def load(self) -> object:
        return importlib.metadata.EntryPoint(self.name, self.value, self.group).load()


def registry_of(offers: Iterable[Offer]) -> Registry:
    entry_points = list(offers)
    return Registry("generators", find_entry_points=lambda: entry_points)  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize("kind", REGISTRIES)
def test_every_built_in_block_can_be_loaded(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANTOOLKIT_PLUGINS", "0")
    assert REGISTRIES[kind].names()
    for name in REGISTRIES[kind].names():
        assert callable(REGISTRIES[kind].get(name))


def test_unknown_name_suggests_the_closest_and_lists_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANTOOLKIT_PLUGINS", "0")
    with pytest.raises(PluginError, match=r"^generators: no 'resent'\. Did you mean 'resnet'\? Known: resnet, unet$"):
        REGISTRIES["generators"].get("resent")


def test_name_of_two_distributions_is_an_error_only_when_it_is_used() -> None:
    registry = registry_of([Offer("unet"), Offer("unet", distribution="beta_gan"), Offer("vit")])
    assert registry.names() == ["unet", "vit"]
    assert registry.get("vit")
    with pytest.raises(
        PluginError, match="'unet' is offered by acme-blocks and beta-gan; write it as '<package>:unet'"
    ):
        registry.get("unet")
    assert registry.find("beta-gan:unet").distribution == "beta-gan"


def test_other_protocol_version_is_refused_with_a_remedy() -> None:
    registry = registry_of([Offer("vit", distribution="old-gan", group="gantoolkit.v0.generators")])
    message = "'vit' from old-gan is for plugin API v0, this gantoolkit has v1; upgrade old-gan"
    with pytest.raises(PluginError, match=message):
        registry.get("vit")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("no_such_module:Block", "ModuleNotFoundError"),
        ("gantoolkit.blocks.schedulers:NoSuch", "AttributeError"),
        ("this:c", "is a int; a class or a function is needed"),
        ("antigravity_that_exits:x", "SystemExit"),
    ],
)
def test_broken_plugin_breaks_only_what_uses_it(
    value: str, reason: str, tmp_path, monkeypatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "antigravity_that_exits.py").write_text("import sys\nsys.exit(3)\n")
    monkeypatch.syspath_prepend(tmp_path)
    registry = registry_of([Offer("broken", value), Offer("whole")])
    assert registry.names() == ["broken", "whole"]
    assert registry.get("whole")
    with pytest.raises(PluginError, match=f"'broken' from acme-blocks 1.0.*{reason}"):
        registry.get("broken")


def test_plugins_can_be_disabled(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = registry_of(
        [Offer("ours", distribution="gantoolkit"), Offer("acme"), Offer("beta", distribution="Beta.GAN")]
    )
    monkeypatch.setenv("GANTOOLKIT_PLUGINS", "0")
    assert registry.names() == ["ours"]
    monkeypatch.setenv("GANTOOLKIT_PLUGINS", "beta-gan")
    assert registry.names() == ["beta", "ours"]
    monkeypatch.delenv("GANTOOLKIT_PLUGINS")
    assert registry.names() == ["acme", "beta", "ours"]


def test_registering_a_name_twice_requires_override() -> None:
    registry = registry_of([Offer("unet")])

    @registry.register("tiny")
    def first() -> None: ...

    with pytest.raises(PluginError, match="'tiny' is already offered by this session"):
        registry.register("tiny")(first)
    with pytest.raises(PluginError, match="'unet' is already offered by acme-blocks"):
        registry.register("unet")(first)

    @registry.register("unet", override=True)
    def second() -> None: ...

    assert registry.get("unet") is second
    assert registry.find("unet").distribution == SESSION


def test_adapter_converts_a_block_of_an_older_version() -> None:
    offers = [Offer("old", group="gantoolkit.v0.generators"), Offer("older", group="gantoolkit.v7.generators")]
    registry = Registry("generators", adapters={0: lambda block: (block, "adapted")}, find_entry_points=lambda: offers)  # type: ignore[arg-type, return-value]
    block, mark = registry.get("old")
    assert (block.__name__, mark) == ("Constant", "adapted")
    with pytest.raises(PluginError, match="is for plugin API v7, this gantoolkit has v1; upgrade gantoolkit"):
        registry.get("older")


def test_error_for_a_disabled_block_names_the_environment_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = registry_of([Offer("acme")])
    monkeypatch.setenv("GANTOOLKIT_PLUGINS", "beta-gan")
    with pytest.raises(
        PluginError, match="'acme' is offered by acme-blocks, which GANTOOLKIT_PLUGINS=beta-gan excludes"
    ):
        registry.get("acme")


def test_listing_loads_no_block() -> None:
    registry = registry_of([Offer("broken", "no_such_module:Block")])
    assert [entry.qualified_name for entry in registry.entries()] == ["acme-blocks:broken"]
    assert "broken" in registry
    assert "acme-blocks:broken" in registry

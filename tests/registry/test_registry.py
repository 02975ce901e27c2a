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
    """An entry point as importlib.metadata gives it, of a distribution that need not be installed."""

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
    found = list(offers)
    return Registry("generators", find_entry_points=lambda: found)  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize("kind", REGISTRIES)
def test_every_built_in_can_be_had(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANTOOLKIT_PLUGINS", "0")
    assert REGISTRIES[kind].names()
    for name in REGISTRIES[kind].names():
        assert callable(REGISTRIES[kind].get(name))


def test_unknown_name_lists_what_is_known_and_guesses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANTOOLKIT_PLUGINS", "0")
    with pytest.raises(PluginError, match=r"^generators: no 'resent'\. Did you mean 'resnet'\? Known: resnet, unet$"):
        REGISTRIES["generators"].get("resent")


def test_two_distributions_with_one_name_are_an_error_only_when_it_is_asked_for() -> None:
    registry = registry_of([Offer("unet"), Offer("unet", distribution="beta_gan"), Offer("vit")])
    assert registry.names() == ["unet", "vit"]
    assert registry.get("vit")
    with pytest.raises(
        PluginError, match="'unet' is offered by acme-blocks and beta-gan; write it as '<package>:unet'"
    ):
        registry.get("unet")
    assert registry.find("beta-gan:unet").distribution == "beta-gan"


def test_other_protocol_version_is_refused_with_the_cure() -> None:
    registry = registry_of([Offer("vit", distribution="old-gan", group="gantoolkit.v0.generators")])
    message = "'vit' from old-gan is made for plugin API v0, this gantoolkit speaks v1; upgrade old-gan"
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
def test_broken_plugin_breaks_only_what_asks_for_it(
    value: str, reason: str, tmp_path, monkeypatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "antigravity_that_exits.py").write_text("import sys\nsys.exit(3)\n")
    monkeypatch.syspath_prepend(tmp_path)
    registry = registry_of([Offer("broken", value), Offer("whole")])
    assert registry.names() == ["broken", "whole"]
    assert registry.get("whole")
    with pytest.raises(PluginError, match=f"'broken' from acme-blocks 1.0.*{reason}"):
        registry.get("broken")


def test_third_parties_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = registry_of(
        [Offer("ours", distribution="gantoolkit"), Offer("acme"), Offer("beta", distribution="Beta.GAN")]
    )
    monkeypatch.setenv("GANTOOLKIT_PLUGINS", "0")
    assert registry.names() == ["ours"]
    monkeypatch.setenv("GANTOOLKIT_PLUGINS", "beta-gan")
    assert registry.names() == ["beta", "ours"]
    monkeypatch.delenv("GANTOOLKIT_PLUGINS")
    assert registry.names() == ["acme", "beta", "ours"]


def test_session_blocks_are_refused_twice_unless_overridden() -> None:
    registry = registry_of([Offer("unet")])

    @registry.register("tiny")
    def first() -> None: ...

    with pytest.raises(PluginError, match="'tiny' is offered by this session already"):
        registry.register("tiny")(first)
    with pytest.raises(PluginError, match="'unet' is offered by acme-blocks already"):
        registry.register("unet")(first)

    @registry.register("unet", override=True)
    def second() -> None: ...

    assert registry.get("unet") is second
    assert registry.find("unet").distribution == SESSION


def test_an_adapter_makes_an_older_block_fit() -> None:
    offers = [Offer("old", group="gantoolkit.v0.generators"), Offer("older", group="gantoolkit.v7.generators")]
    registry = Registry("generators", adapters={0: lambda block: (block, "adapted")}, find_entry_points=lambda: offers)  # type: ignore[arg-type, return-value]
    block, mark = registry.get("old")
    assert (block.__name__, mark) == ("Constant", "adapted")
    with pytest.raises(PluginError, match="made for plugin API v7, this gantoolkit speaks v1; upgrade gantoolkit"):
        registry.get("older")


def test_a_block_that_is_switched_off_is_not_called_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = registry_of([Offer("acme")])
    monkeypatch.setenv("GANTOOLKIT_PLUGINS", "beta-gan")
    with pytest.raises(
        PluginError, match="'acme' is offered by acme-blocks, which GANTOOLKIT_PLUGINS=beta-gan leaves out"
    ):
        registry.get("acme")


def test_listing_does_not_load() -> None:
    registry = registry_of([Offer("broken", "no_such_module:Block")])
    assert [entry.qualified_name for entry in registry.entries()] == ["acme-blocks:broken"]
    assert "broken" in registry
    assert "acme-blocks:broken" in registry

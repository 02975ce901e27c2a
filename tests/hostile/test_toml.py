"""Recipes from strangers: bounded in size, depth and numbers; a wrong type is one sentence; no name in them is imported."""

import datetime
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from gantoolkit.blocks.metrics.palette import find_palette
from gantoolkit.errors import GantoolkitError
from gantoolkit.files.toml import MAX_BYTES, parse_toml
from gantoolkit.recipes import Recipe, cyclegan, find_recipe

Refused = Callable[..., str]
DEEP = 10_000


def resolved(text: str) -> Recipe:
    return Recipe.from_toml(text).resolve()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a = " + "[" * DEEP + "]" * DEEP, "is nested more than 20 levels deep"),
        ("a = " + "{a=" * DEEP + "1" + "}" * DEEP, "is nested more than 20 levels deep"),
        ("a" + ".a" * DEEP + " = 1", "is nested more than 20 levels deep"),
        ("[a" + ".a" * DEEP + "]\n", "is nested more than 20 levels deep"),
        ("[[a" + ".a" * DEEP + "]]\n", "is nested more than 20 levels deep"),
        ("a = " + "[" * 30 + "]" * 30, "is nested more than 20 levels deep"),
        (f'recipe = "cyclegan"\n"a{".a" * DEEP}" = 1', "is no field; none lies that deep"),
        ("[" * DEEP, "is no TOML"),
        ("a = " + "9" * 100_000, "is no TOML"),
        ("a = 0x" + "f" * 100_000, "is no TOML: an integer has at most 64 bits"),
        ("a = -9223372036854775809", "an integer has at most 64 bits"),
        ("a = [[1, {b = 18446744073709551616}]]", "an integer has at most 64 bits"),
        ("a = 1e999", "holds inf, which is no number"),
        ("a = nan", "holds nan, which is no number"),
        ("a = [1, -inf]", "holds -inf, which is no number"),
        ("a = 1\na = 2", "is no TOML"),
        ("a = 1\0", "is no TOML"),
        ("a = '\x1b[2J'", "is no TOML"),
        ('a = "\\u0000"', "says neither recipe"),
        ('a = "\\ud800"', "is no TOML"),
        ("a = 2026-13-99", "is no TOML"),
        ("a = 9999-99-99T99:99:99Z", "is no TOML"),
        ("#" * (MAX_BYTES + 1), f"more than {MAX_BYTES:,} characters"),
        ("x" * 50_000_000, f"more than {MAX_BYTES:,} characters"),
        ("recipe = [1]", "is no name"),
        ("recipe = 1979-05-27", "is no name"),
        ('recipe = "../../etc/passwd"', "recipes: no"),
        ('recipe = "a\\nb\\u001b[31m"', "recipes: no"),
        ("", "says neither recipe"),
    ],
    ids=range(29),
)
def test_hostile_texts(text: str, words: str, refused: Refused) -> None:
    began = time.process_time()
    assert words in refused(resolved, text)
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\xff\xfer\0e\0c\0", "is no text in UTF-8 (byte 0)"),
        (b'recipe = "cyclegan\xe9"', "is no text in UTF-8 (byte 18)"),
        (bytes(1000), "is no TOML"),
        (b"#" * 50_000_000, f"more than {MAX_BYTES:,} bytes"),
        (b"\x80\x04N.", "is no text in UTF-8"),
    ],
    ids=range(5),
)
def test_hostile_bytes(content: bytes, words: str, refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_bytes(content)
    for reader in (find_recipe, find_palette):
        sentence = refused(reader, str(tmp_path / "mine.toml"))
        assert words in sentence
        assert "mine.toml: " in sentence


def test_a_mark_at_the_beginning_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_bytes(b'\xef\xbb\xbfrecipe = "cyclegan"\ncycle_weight = 5.0\n')
    assert find_recipe(str(tmp_path / "mine.toml")).system.parameters["cycle_weight"] == 5.0


@pytest.mark.skipif(sys.platform == "win32", reason="there are no named pipes in folders")
def test_pipes_devices_and_folders(refused: Refused, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.toml")
    (tmp_path / "zero.toml").symlink_to("/dev/zero")
    (tmp_path / "folder.toml").mkdir()
    for name, words in (
        ("pipe.toml", "is a pipe or a device"),
        ("zero.toml", "is a pipe or a device"),
        ("folder.toml", "is a folder"),
        ("nothing.toml", "no such file"),
    ):
        for reader in (find_recipe, find_palette):
            assert words in refused(reader, str(tmp_path / name))


def test_a_file_that_may_not_be_read(refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.toml").touch()

    def refuse(self: Path, *arguments: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    assert "mine.toml: cannot be read: Permission denied" in refused(find_recipe, str(tmp_path / "mine.toml"))


# Types


def paths_of(table: dict[str, Any], prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in table.items():
        yield (*prefix, key)
        if isinstance(value, dict):
            yield from paths_of(value, (*prefix, key))


WHOLE_TEXT = cyclegan().resolve().to_toml()
WHOLE = parse_toml(WHOLE_TEXT, "recipe")
WRONG = {
    "date": datetime.date(2026, 1, 1),
    "time": datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
    "list": [1, [2]],
    "empty list": [],
    "table": {"a": 1},
    "empty table": {},
    "nameless": {"name": 3},
    "negative": -1,
    "huge": 2**62,
    "fraction": 0.25,
    "ground_truth": True,
    "text": "2e-4",
    "empty text": "",
    "a module": "os:system",
    "a class": "python:ResNetGenerator",
}
NEVER = ("date", "time", "list", "nameless")
"""No field takes one of these."""


@pytest.mark.parametrize("kind", WRONG)
def test_a_value_of_another_type_in_every_field(kind: str) -> None:
    taken = 0
    for path in list(paths_of(WHOLE))[:: 1 if kind in NEVER else 3]:
        mapping = parse_toml(WHOLE_TEXT, "recipe")
        holder = mapping
        for key in path[:-1]:
            holder = holder[key]
        holder[path[-1]] = WRONG[kind]
        try:
            resolved(tomli_w.dumps(mapping))
        except GantoolkitError as error:
            sentence = str(error)
        else:
            taken += 1
            continue
        assert sentence.isprintable()
        assert len(sentence) < 500
        assert kind not in NEVER or any(key in sentence for key in path), sentence
    assert kind not in NEVER or taken == 0


@pytest.mark.parametrize("path", [".".join(path) for path in paths_of(WHOLE)])
def test_a_field_that_is_misspelt_or_holds_a_stranger(path: str, refused: Refused) -> None:
    *parents, field = path.split(".")
    sentence = refused(resolved, f'recipe = "cyclegan"\n"{".".join([*parents, field + "x" * 20])}" = 1')
    assert "xxxxx" in sentence


# Names


@pytest.mark.parametrize(
    "name",
    [
        "os:system",
        "os.system",
        "hostile_module",
        "hostile_module:Block",
        "hostile_module.Block",
        "python:hostile_module.Block",
        "python:ResNetGenerator",
        "gantoolkit.blocks.generators.resnet:ResNetGenerator",
        "../hostile_module",
        "__import__('hostile_module')",
        "a\nb\x1b[31m",
        "x" * 100_000,
        "",
        ":",
        "a:b:c",
        "ʀesnet",
    ],
    ids=range(16),
)
def test_no_name_in_a_file_is_imported(
    name: str, refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hostile_module.py").write_text("raise SystemExit('a stranger’s code has run')\n")
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    for field in ("generator", "discriminator", "adversarial_loss", "image_pool", "optimizer", "metric", "initializer"):
        for text in (
            tomli_w.dumps({"recipe": "cyclegan", field: name}),
            tomli_w.dumps({"recipe": "cyclegan", field: {"name": name}}),
        ):
            refused(resolved, text)
    refused(resolved, tomli_w.dumps({"system": name}))
    refused(resolved, tomli_w.dumps({"recipe": name}))
    assert not [
        module for module in set(sys.modules) - before if not module.startswith(("gantoolkit", "torch", "timm"))
    ]


def test_a_class_cannot_be_smuggled_in(refused: Refused) -> None:
    for table in ({"name": "resnet", "target": "os.system"}, {"name": "resnet", "parameters": {"blocks": 2}}):
        assert "is no parameter" in refused(resolved, tomli_w.dumps({"recipe": "cyclegan", "generator": table}))


def test_the_command_line_says_it_in_one_sentence(command, tmp_path: Path) -> None:
    for number, text in enumerate(
        ("a = " + "[" * DEEP, "#" * (MAX_BYTES + 1), 'recipe = "cyclegan"\ngenerator = "a\\nb"')
    ):
        path = tmp_path / f"{number}.toml"
        path.write_text(text)
        code, _, complaint = command("train", path, "--data", tmp_path, "--out", tmp_path / "run")
        assert code == 2
        assert complaint.count("\n") == 1
        assert "Traceback" not in complaint
    for setting in (
        "generator.blocks=" + "9" * 100_000,
        "generator.blocks=0x" + "f" * 10_000,
        "a" + ".a" * DEEP + "=1",
    ):
        code, _, complaint = command(
            "train", "cyclegan", "--data", tmp_path, "--out", tmp_path / "run", "--set", setting
        )
        assert code == 2
        assert complaint.count("\n") == 1

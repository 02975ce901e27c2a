"""Untrusted recipes: size, depth and numbers are bounded, wrong types get a one-sentence error, and no name is imported."""

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

ErrorMessage = Callable[..., str]
DEEP = 10_000


def resolve(text: str) -> Recipe:
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
        (f'recipe = "cyclegan"\n"a{".a" * DEEP}" = 1', "is not a field; no field is nested that deep"),
        ("[" * DEEP, "is not TOML"),
        ("a = " + "9" * 100_000, "is not TOML"),
        ("a = 0x" + "f" * 100_000, "is not TOML: an integer has at most 64 bits"),
        ("a = -9223372036854775809", "an integer has at most 64 bits"),
        ("a = [[1, {b = 18446744073709551616}]]", "an integer has at most 64 bits"),
        ("a = 1e999", "contains inf, which is not a finite number"),
        ("a = nan", "contains nan, which is not a finite number"),
        ("a = [1, -inf]", "contains -inf, which is not a finite number"),
        ("a = 1\na = 2", "is not TOML"),
        ("a = 1\0", "is not TOML"),
        ("a = '\x1b[2J'", "is not TOML"),
        ('a = "\\u0000"', "has neither recipe"),
        ('a = "\\ud800"', "is not TOML"),
        ("a = 2026-13-99", "is not TOML"),
        ("a = 9999-99-99T99:99:99Z", "is not TOML"),
        ("#" * (MAX_BYTES + 1), f"more than {MAX_BYTES:,} characters"),
        ("x" * 50_000_000, f"more than {MAX_BYTES:,} characters"),
        ("recipe = [1]", "is not a name"),
        ("recipe = 1979-05-27", "is not a name"),
        ('recipe = "../../etc/passwd"', "recipes: no"),
        ('recipe = "a\\nb\\u001b[31m"', "recipes: no"),
        ("", "has neither recipe"),
    ],
    ids=range(29),
)
def test_hostile_texts(text: str, words: str, error_message: ErrorMessage) -> None:
    start = time.process_time()
    assert words in error_message(resolve, text)
    assert time.process_time() - start < 5


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\xff\xfer\0e\0c\0", "is not UTF-8 text (byte 0)"),
        (b'recipe = "cyclegan\xe9"', "is not UTF-8 text (byte 18)"),
        (bytes(1000), "is not TOML"),
        (b"#" * 50_000_000, f"more than {MAX_BYTES:,} bytes"),
        (b"\x80\x04N.", "is not UTF-8 text"),
    ],
    ids=range(5),
)
def test_hostile_bytes(content: bytes, words: str, error_message: ErrorMessage, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_bytes(content)
    for reader in (find_recipe, find_palette):
        message = error_message(reader, str(tmp_path / "mine.toml"))
        assert words in message
        assert "mine.toml: " in message


def test_byte_order_mark_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_bytes(b'\xef\xbb\xbfrecipe = "cyclegan"\ncycle_weight = 5.0\n')
    assert find_recipe(str(tmp_path / "mine.toml")).system.parameters["cycle_weight"] == 5.0


@pytest.mark.skipif(sys.platform == "win32", reason="there are no named pipes in folders")
def test_pipes_devices_and_folders(error_message: ErrorMessage, tmp_path: Path) -> None:
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
            assert words in error_message(reader, str(tmp_path / name))


def test_file_without_read_permission(
    error_message: ErrorMessage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.toml").touch()

    def refuse(self: Path, *arguments: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    assert "mine.toml: cannot be read: Permission denied" in error_message(find_recipe, str(tmp_path / "mine.toml"))


# Types


def field_paths(table: dict[str, Any], prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in table.items():
        yield (*prefix, key)
        if isinstance(value, dict):
            yield from field_paths(value, (*prefix, key))


RECIPE_TEXT = cyclegan().resolve().to_toml()
RECIPE = parse_toml(RECIPE_TEXT, "recipe")
WRONG_VALUES = {
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
NEVER_VALID = ("date", "time", "list", "nameless")
"""The kinds of values that no field accepts."""


@pytest.mark.parametrize("kind", WRONG_VALUES)
def test_wrong_type_in_every_field(kind: str) -> None:
    accepted = 0
    for path in list(field_paths(RECIPE))[:: 1 if kind in NEVER_VALID else 3]:
        mapping = parse_toml(RECIPE_TEXT, "recipe")
        table = mapping
        for key in path[:-1]:
            table = table[key]
        table[path[-1]] = WRONG_VALUES[kind]
        try:
            resolve(tomli_w.dumps(mapping))
        except GantoolkitError as error:
            message = str(error)
        else:
            accepted += 1
            continue
        assert message.isprintable()
        assert len(message) < 500
        assert kind not in NEVER_VALID or any(key in message for key in path), message
    assert kind not in NEVER_VALID or accepted == 0


@pytest.mark.parametrize("path", [".".join(path) for path in field_paths(RECIPE)])
def test_unknown_field_is_named(path: str, error_message: ErrorMessage) -> None:
    *parents, field = path.split(".")
    message = error_message(resolve, f'recipe = "cyclegan"\n"{".".join([*parents, field + "x" * 20])}" = 1')
    assert "xxxxx" in message


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
def test_names_in_a_file_are_not_imported(
    name: str, error_message: ErrorMessage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hostile_module.py").write_text("raise SystemExit('untrusted code has run')\n")
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    for field in ("generator", "discriminator", "adversarial_loss", "image_pool", "optimizer", "metric", "initializer"):
        for text in (
            tomli_w.dumps({"recipe": "cyclegan", field: name}),
            tomli_w.dumps({"recipe": "cyclegan", field: {"name": name}}),
        ):
            error_message(resolve, text)
    error_message(resolve, tomli_w.dumps({"system": name}))
    error_message(resolve, tomli_w.dumps({"recipe": name}))
    assert not [
        module for module in set(sys.modules) - before if not module.startswith(("gantoolkit", "torch", "timm"))
    ]


def test_class_path_as_a_parameter_is_rejected(error_message: ErrorMessage) -> None:
    for table in ({"name": "resnet", "target": "os.system"}, {"name": "resnet", "parameters": {"blocks": 2}}):
        assert "is not a parameter" in error_message(resolve, tomli_w.dumps({"recipe": "cyclegan", "generator": table}))


def test_command_line_prints_one_sentence(command, tmp_path: Path) -> None:
    for number, text in enumerate(
        ("a = " + "[" * DEEP, "#" * (MAX_BYTES + 1), 'recipe = "cyclegan"\ngenerator = "a\\nb"')
    ):
        path = tmp_path / f"{number}.toml"
        path.write_text(text)
        code, _, error = command("train", path, "--data", tmp_path, "--out", tmp_path / "run")
        assert code == 2
        assert error.count("\n") == 1
        assert "Traceback" not in error
    for setting in (
        "generator.blocks=" + "9" * 100_000,
        "generator.blocks=0x" + "f" * 10_000,
        "a" + ".a" * DEEP + "=1",
    ):
        code, _, error = command("train", "cyclegan", "--data", tmp_path, "--out", tmp_path / "run", "--set", setting)
        assert code == 2
        assert error.count("\n") == 1

"""`gantoolkit check`: output and exit codes."""

import builtins
import re

import pytest
from torch import Tensor, nn

from gantoolkit.cli import main
from gantoolkit.cli.exit_codes import INCOMPLETE
from gantoolkit.plugins import REGISTRIES
from gantoolkit.testing import RULEBOOKS


class Unbounded(nn.Module):
    """A generator whose output is not bounded."""

    size_multiple = 1

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.layer = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.layer(images)


@pytest.fixture
def unbounded(monkeypatch: pytest.MonkeyPatch) -> None:
    generators = REGISTRIES["generators"]
    monkeypatch.setattr(generators, "_session", dict(generators._session))
    generators.register("unbounded")(Unbounded)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["check", *arguments])
    output, errors = capsys.readouterr()
    return code, output, re.sub(r"\x1b\[[0-9;]*m", "", errors)


def test_built_in_block_breaks_no_rule(capsys) -> None:
    code, output, _ = run(capsys, "patchgan", "--set", "width=4", "--set", "layers=1", "--device", "cpu")
    assert code == 0
    assert all(f" {rule.name}" in output for rule in RULEBOOKS["discriminators"].rules)
    assert output.endswith("no rule is broken\n")


def test_name_of_two_kinds_is_checked_as_both(capsys) -> None:
    code, output, _ = run(capsys, "l1")
    assert code == 0
    assert "image_losses: 'l1'" in output
    assert "metrics: 'l1'" in output


def test_broken_rule_gives_exit_code_3(capsys, unbounded: None) -> None:
    code, output, _ = run(capsys, "unbounded", "--device", "cpu")
    assert code == INCOMPLETE == 3
    assert re.search(
        r"failed +output_is_in_range\n +The protocol requires: .*\n +Found: .*\n +Smallest example: ", output
    )
    assert output.endswith("1 broken\n")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nothing"], r"'nothing'"),
        (["patchgan", "--set", "width=0"], r"patchgan.*'width' cannot be 0; it takes int, ≥ 1"),
        (["patchgan", "--set", "color=red"], r"patchgan.*'color'"),
        (["patchgan", "--device", "toaster"], r"toaster"),
    ],
)
def test_bad_input_gives_one_sentence(capsys, arguments: list[str], sentence: str) -> None:
    code, _, errors = run(capsys, *arguments)
    assert code == 2
    assert re.search(sentence, errors)
    assert "Traceback" not in errors


def test_missing_extra_says_what_to_install(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    original_import = builtins.__import__

    def import_without_hypothesis(name: str, *arguments, **options):
        if name == "gantoolkit.testing":
            raise ModuleNotFoundError("No module named 'hypothesis'")
        return original_import(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", import_without_hypothesis)
    code, _, errors = run(capsys, "patchgan")
    assert code == 2
    assert "pip install gantoolkit[testing]" in errors

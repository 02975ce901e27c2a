"""What commands print: results are written to files first, and no encoding or full disk ends a command."""

import io
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from _helpers.small import TINY_ARGUMENTS, make_dataset, make_tiny, official_resnet
from cyclopts import App

import gantoolkit
from gantoolkit.cli import evaluate as evaluate_command
from gantoolkit.cli import main
from gantoolkit.cli.app import app
from gantoolkit.evaluation.study import Protocol, Store
from gantoolkit.plugins import REGISTRIES
from gantoolkit.recipes import Recipe
from gantoolkit.run import Run


@pytest.fixture
def run(tiny: Recipe, dataset: Path, tmp_path: Path) -> Run:
    return gantoolkit.train(tiny, dataset, tmp_path / "run", device="cpu", stop_at=1)


def test_scores_are_written_before_they_are_printed(command, run: Run, tmp_path: Path, monkeypatch) -> None:
    def fail(scores: object) -> None:
        raise UnicodeEncodeError("cp1252", "→", 0, 1, "character maps to <undefined>")

    monkeypatch.setattr(evaluate_command, "print_scores", fail)
    command("evaluate", run.path, "--out", tmp_path / "scores", "--metric=l1", "--device=cpu")
    assert {"scores.csv", "scores.json", "report.html"} <= {path.name for path in (tmp_path / "scores").iterdir()}


def test_scores_that_cannot_be_written_are_printed(command, run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, output, errors = command("evaluate", run.path, "--out", tmp_path / "file", "--metric=l1", "--device=cpu")
    assert code == 2
    assert "rec_l1" in output
    assert "cannot be written" in errors


NAME = "Pferd → Zébra 馬"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run, a data set, weights and the answers of a study, under a name that is not ASCII."""
    root = tmp_path_factory.mktemp("files") / NAME
    make_dataset(root / "images", count_A=4)
    gantoolkit.train(make_tiny(), root / "images", root / "run", device="cpu", stop_at=1)
    torch.save(official_resnet(1, 2, False, True, ""), root / "official.pth")
    Store(root / "study.sqlite", Protocol(practice=0, counted=1), ["a.png"], {NAME: ["b.png"]}).close()
    return root


COMMANDS: dict[str, list[str]] = {
    "ablate": ["cyclegan", "--data={files}/images", "--out={out}", "--plan", *TINY_ARGUMENTS],
    "bench": ["cyclegan", "--steps=1", *TINY_ARGUMENTS],
    "blocks": [],
    "blocks show": ["resnet"],
    "card": ["{files}/run"],
    "check": ["image_pools/none"],
    "data check": ["{files}/images"],
    "data download": [],
    "data pack": ["{files}/images", "--out={out}", "--side=8"],
    "data pair": ["{files}/images/trainA", "{files}/images/trainB", "--out={out}"],
    "data stats": ["{files}/images", "--sheet={out}/sheet.png"],
    "demo": ["--set=no→field=1", "--out={out}"],
    "evaluate": ["{files}/run", "--out={out}", "--metric=l1", "--device=cpu"],
    "export": ["{files}/run", "--direction=A2B", "--format=safetensors", "--out={out}/a.safetensors"],
    "import official": ["{files}/official.pth", "--out={out}/a.safetensors"],
    "plan": ["cyclegan", "--data=→", *TINY_ARGUMENTS],
    "plugins": [],
    "plugins new": ["gantoolkit-stripes", "--kind=generators", "--out={out}"],
    "pull": ["→/→", "--out={out}"],
    "push": ["{files}/run", "→"],
    "recipes": [],
    "serve": ["→.safetensors"],
    "show": ["{files}/run"],
    "study report": ["{files}/study.sqlite", "--out={out}"],
    "study serve": ["--real=→", "--fake=→=→"],
    "train": ["cyclegan", "--data={files}/images", "--out={out}", "--stop-at=1", *TINY_ARGUMENTS],
    "train-segmenter": ["--photographs=→", "--maps=→", "--out={out}/→"],
    "translate": ["{files}/run", "{files}/images/testA", "--direction=A2B", "--out={out}"],
}
"""Arguments of each command. Those that take long, or need a network, fail with a message."""
WITH_A_MESSAGE = ("demo", "plan", "pull", "push", "serve", "study serve", "train-segmenter")


def names_of(group: App, prefix: str = "") -> Iterator[str]:
    for name in group:
        if not name.startswith("-"):
            yield prefix + name
            yield from names_of(group[name], f"{prefix}{name} ")


def test_every_command_is_tried() -> None:
    groups = {"data", "import", "study"}
    assert set(names_of(app)) - groups == set(COMMANDS)


@pytest.fixture
def run_encoded(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, str]]:
    """Run a command whose output has an encoding; returns its exit code, standard output and standard error."""

    def run(encoding: str, *arguments: str) -> tuple[int, str, str]:
        streams = [io.TextIOWrapper(io.BytesIO(), encoding) for _ in range(2)]
        monkeypatch.setattr("sys.stdout", streams[0])
        monkeypatch.setattr("sys.stderr", streams[1])
        code = main(arguments)
        assert [stream.errors for stream in streams] == ["strict", "strict"]
        for stream in streams:
            stream.flush()
        output, errors = (stream.buffer.getvalue().decode(encoding) for stream in streams)  # type: ignore[attr-defined]
        return code, output, errors

    return run


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_print_in_ascii(name: str, run_encoded, files: Path, tmp_path: Path) -> None:
    arguments = [text.format(files=files, out=tmp_path / "out") for text in COMMANDS[name]]
    code, output, errors = run_encoded("ascii", *name.split(), *arguments)
    assert code == 2 if name in WITH_A_MESSAGE else code in (0, 3), errors
    assert "mistake in" not in errors
    assert output or name in WITH_A_MESSAGE
    assert run_encoded("ascii", *name.split(), "--help")[0] == 0


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "cp437", "utf-8"])
@pytest.mark.parametrize("name", ["blocks show", "card", "data download", "plan", "recipes"])
def test_commands_print_in_any_encoding(name: str, encoding: str, run_encoded, files: Path) -> None:
    arguments = [text.format(files=files) for text in COMMANDS[name]]
    code, output, errors = run_encoded(encoding, *name.split(), *arguments)
    assert code == (2 if name in WITH_A_MESSAGE else 0), errors
    assert output or "no such folder" in errors


@pytest.mark.parametrize("kind", REGISTRIES)
def test_blocks_are_described_in_ascii(kind: str, run_encoded) -> None:
    for name in REGISTRIES[kind].names():
        code, output, errors = run_encoded("ascii", "blocks", "show", f"{kind}/{name}")
        assert code == 0, errors
        assert f"{name}, one of {kind}" in output


def test_frequent_characters_have_plain_equivalents(run_encoded, files: Path, tmp_path: Path) -> None:
    _, output, _ = run_encoded(
        "ascii", "evaluate", str(files / "run"), f"--out={tmp_path}", "--metric=l1", "--device=cpu"
    )
    assert "A -> B, 95 % intervals" in output
    _, output, _ = run_encoded("ascii", "show", str(files / "run"))
    assert "Pferd -> Z?bra ?" in output


def test_names_that_are_not_unicode_are_printed(run_encoded, files: Path, tmp_path: Path) -> None:
    name = os.fsdecode(b"not \xff Unicode.png")
    try:
        (tmp_path / name).write_text("not an image")
    except OSError:
        pytest.skip("the file system has names in UTF-8 only")
    arguments = ["--direction=A2B", f"--out={tmp_path / 'out'}"]
    code, _, errors = run_encoded("utf-8", "translate", str(files / "run"), str(tmp_path / name), *arguments)
    assert code == 3
    assert "Unicode.png" in errors


PROCESS = [sys.executable, "-m", "gantoolkit"]


@pytest.mark.slow(reason="starts processes")
def test_a_process_in_the_c_locale(files: Path, tmp_path: Path) -> None:
    c_locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    arguments = ["evaluate", files / "run", f"--data={files / 'images'}", f"--out={tmp_path / NAME}", "--metric=l1"]
    result = subprocess.run([*PROCESS, *arguments], env={**os.environ, **c_locale}, capture_output=True, check=False)
    assert result.returncode == 0, result.stderr
    assert b"A -> B" in result.stdout
    assert (tmp_path / NAME / "scores.json").is_file()


@pytest.mark.slow(reason="starts processes")
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full exists only on Linux")
@pytest.mark.parametrize("option", ["-u", "-Wdefault"])
def test_lost_output_is_an_error_only_where_it_is_the_result(option: str, files: Path, tmp_path: Path) -> None:
    translate = [
        "translate",
        str(files / "run"),
        str(files / "images" / "testA"),
        "--direction=A2B",
        f"--out={tmp_path}",
    ]
    for arguments, code in ((["blocks"], 2), (translate, 0)):
        with Path("/dev/full").open("w") as full:
            result = subprocess.run(
                [sys.executable, option, "-m", "gantoolkit", *arguments],
                stdout=full,
                stderr=subprocess.PIPE,
                check=False,
            )
        assert result.returncode == code
        assert result.stderr == b"error: the output cannot be written (No space left on device)\n"
    assert len(list(tmp_path.glob("*.png"))) == 2


@pytest.mark.slow(reason="starts processes")
def test_a_reader_that_leaves_ends_no_work(files: Path, tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    sources = [str(files / "official.pth"), str(files / "images" / "testA")]  # the first is skipped, which is printed
    arguments = ["translate", str(files / "run"), *sources, "--direction=A2B", f"--out={tmp_path}"]
    result = subprocess.run([*PROCESS, *arguments], stdout=write_end, stderr=write_end, check=False)
    os.close(write_end)
    assert result.returncode == 3
    assert len(list(tmp_path.glob("*.png"))) == 2


@pytest.mark.slow(reason="starts processes")
def test_closed_streams(files: Path) -> None:
    for closed in (">&-", "2>&-", ">&- 2>&-"):
        command = f"{shlex.join([*PROCESS, 'data', 'check', str(files / 'images')])} {closed}"
        assert subprocess.run(["bash", "-c", command], capture_output=True, check=False).returncode == 0

"""The commands as a person types them: output, exit codes, and errors for bad input."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from _helpers.small import TINY_ARGUMENTS, make_dataset, make_image
from PIL import Image

from gantoolkit.plugins import REGISTRIES

TINY = ["--set=training.epochs=2", *TINY_ARGUMENTS]


def test_train_stop_resume_translate(command, dataset: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    code, output, _ = command("train", "cyclegan", "--data", dataset, "--out", run, *TINY, "--stop-at", 3)
    assert code == 0
    assert f"stopped as requested at step 3; report: {run / 'report.html'}" in output
    assert f"continue with: gantoolkit train --resume {run}" in output
    code, output, _ = command("train", "--resume", run, "--device=cpu")
    assert code == 0
    assert "finished at step 10" in output
    code, output, _ = command("translate", run, "--direction", "B2A", dataset / "testB", "--out", tmp_path / "out")
    assert code == 0
    assert "2 files translated" in output
    with Image.open(tmp_path / "out" / "00.png") as image:
        assert image.size == (40, 36)
    code, output, _ = command(
        "translate", run / "generators" / "B2A.safetensors", dataset / "testB", "--out", tmp_path / "again"
    )
    assert code == 0
    assert (tmp_path / "again" / "00.png").read_bytes() == (tmp_path / "out" / "00.png").read_bytes()


def test_recipe_file_and_settings(command, dataset: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('recipe = "cyclegan"\nidentity_weight = 2.5\n')
    code, _, _ = command(
        "train",
        file,
        "--data",
        dataset,
        "--out",
        tmp_path / "run",
        *TINY,
        "--stop-at=1",
        "--set=generator=resnet",
        *TINY[:2],
    )
    assert code == 0
    assert "identity_weight = 2.5" in (tmp_path / "run" / "recipe.toml").read_text()


def test_bad_files_are_skipped_and_counted(command, dataset: Path, tmp_path: Path) -> None:
    content = (dataset / "trainA" / "01.png").read_bytes()
    (dataset / "trainA" / "01.png").write_bytes(content[: len(content) // 2])
    (dataset / "trainA" / "02.jpg").write_text("text")
    code, _, errors = command("train", "cyclegan", "--data", dataset, "--out", tmp_path / "run", *TINY)
    assert code == 3
    assert errors.count("another image is used instead") == 2
    assert "02.jpg is not a readable image" in errors
    assert "01.png is damaged or cannot be read" in errors
    code, output, errors = command(
        "translate", tmp_path / "run", "--direction=A2B", dataset / "trainA", "--out", tmp_path / "out"
    )
    assert code == 3
    assert "4 files translated" in output
    assert "2 skipped" in output
    assert errors.count("skipped: ") == 2


def bad_inputs(root: Path) -> dict[str, tuple[list[object], str]]:
    """For each case: the arguments, and a part of the error message."""
    data = make_dataset(root / "data")
    (root / "empty").mkdir()
    (root / "half" / "trainA").mkdir(parents=True)
    make_image(0).save(root / "half" / "trainA" / "a.png")
    (root / "no-images" / "trainA").mkdir(parents=True)
    (root / "no-images" / "trainB").mkdir(parents=True)
    (root / "broken.toml").write_text("recipe = \n")
    (root / "typo.toml").write_text('recipe = "cyclegan"\ncycle_wieght = 3.0\n')
    (root / "file").touch()
    train = ["train", "cyclegan", "--out", root / "run"]
    return {
        "no data folder": (
            [*train, "--data", root / "nowhere", *TINY],
            "nowhere: no such folder; a data set is a folder with",
        ),
        "empty folder": (
            [*train, "--data", root / "empty", *TINY],
            "the folders trainA and trainB are missing; found no folder",
        ),
        "one domain": ([*train, "--data", root / "half", *TINY], "domain B is missing"),
        "folders without images": ([*train, "--data", root / "no-images", *TINY], "trainA: contains no image"),
        "unknown recipe": (
            ["train", "cyclegann", "--data", data, "--out", root / "run"],
            "no 'cyclegann'. Did you mean 'cyclegan'?",
        ),
        "missing recipe file": (
            ["train", root / "no.toml", "--data", data, "--out", root / "run"],
            "no.toml: cannot be read",
        ),
        "invalid TOML": (
            ["train", root / "broken.toml", "--data", data, "--out", root / "run"],
            "broken.toml: is not TOML",
        ),
        "typo in a file": (
            ["train", root / "typo.toml", "--data", data, "--out", root / "run"],
            "did you mean 'cycle_weight'?",
        ),
        "typo in a setting": ([*train, "--data", data, "--set", "generator.block=3"], "did you mean 'blocks'?"),
        "setting without a value": ([*train, "--data", data, "--set", "generator"], "write field=value"),
        "unknown block": (
            [*train, "--data", data, "--set", "generator=vit"],
            "generators: no 'vit'. Known: resnet, unet",
        ),
        "unknown device": (
            [*train, "--data", data, *TINY[:-1], "--device", "tpu9"],
            "device 'tpu9' cannot be used here",
        ),
        "more than the available memory": (
            [*train, "--data", data, *TINY, "--set=generator.width=100000"],
            "its networks are too large",
        ),
        "no partner": (
            ["train", "pix2pix", "--data", data, "--out", root / "run"],
            "1 file has no partner, trainA/04.png first",
        ),
        "no out": (["train", "cyclegan", "--data", data], "train needs --out"),
        "out is a file": (
            ["train", "cyclegan", "--data", data, "--out", root / "file" / "run", *TINY],
            "cannot be written",
        ),
        "resume without a run": (["train", "--resume", root / "empty"], "is not a run (it has no recipe.toml)"),
        "resume with settings": (
            ["train", "--resume", root / "empty", "--set", "a=1"],
            "--resume continues a run as it is",
        ),
        "translate without a run": (["translate", root / "empty", data, "--out", root / "o"], "is not a run"),
        "translate without images": (["translate", root / "empty", "--out", root / "o"], "translate needs images"),
        "translate with an image": (
            ["translate", data / "trainA" / "00.png", data, "--out", root / "o"],
            "is not a gantoolkit file",
        ),
        "show an unknown block": (["blocks", "show", "resent"], "no 'resent'. Did you mean 'resnet'?"),
        "unknown kind": (["blocks", "generator"], "no kind 'generator'. Did you mean 'generators'?"),
    }


@pytest.mark.parametrize(
    "name",
    [
        "no data folder",
        "empty folder",
        "one domain",
        "folders without images",
        "unknown recipe",
        "missing recipe file",
        "invalid TOML",
        "typo in a file",
        "typo in a setting",
        "setting without a value",
        "unknown block",
        "unknown device",
        "more than the available memory",
        "no partner",
        "no out",
        "out is a file",
        "resume without a run",
        "resume with settings",
        "translate without a run",
        "translate without images",
        "translate with an image",
        "show an unknown block",
        "unknown kind",
    ],
)
def test_bad_input_gives_one_sentence_and_exit_code_2(name: str, command, tmp_path: Path) -> None:
    arguments, message = bad_inputs(tmp_path)[name]
    code, _, errors = command(*arguments)
    assert code == 2
    assert message in errors
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "--no-such-option"],
        ["trian"],
        ["train", "cyclegan", "--workers", "many"],
        ["train", "cyclegan", "--workers=-1"],
        ["translate", "run", "a.png", "--out=o", "--batch-size=0"],
    ],
)
def test_misspelled_commands_are_errors(arguments: list[str], command) -> None:
    code, _, errors = command(*arguments)
    assert code == 2
    assert "Traceback" not in errors


def test_wrong_data_folder_creates_no_run(command, dataset: Path, tmp_path: Path) -> None:
    train = ["train", "cyclegan", "--out", tmp_path / "run", *TINY, "--stop-at"]
    assert command(*train, 1, "--data", tmp_path / "nowhere")[0] == 2
    assert not (tmp_path / "run").exists()
    assert command(*train, 1, "--data", dataset)[0] == 0
    dataset.rename(tmp_path / "moved")
    assert command(*train, 2, "--data", tmp_path / "moved")[0] == 0
    assert command("train", "--resume", tmp_path / "run", "--stop-at", 3, "--device=cpu")[0] == 0


def test_run_of_another_recipe_is_not_changed(command, dataset: Path, tmp_path: Path) -> None:
    train = ["train", "cyclegan", "--data", dataset, "--out", tmp_path / "run", *TINY, "--stop-at", 1]
    assert command(*train)[0] == 0
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    code, _, errors = command(*train, "--set", "cycle_weight=3.0")
    assert code == 2
    assert "holds a run of another recipe: cycle_weight is 3.0 here and 10.0 there; choose another --out" in errors
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


def test_full_disk_while_translating(command, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command("train", "cyclegan", "--data", dataset, "--out", tmp_path / "run", *TINY, "--stop-at", 1)

    def fail_to_save(self: Image.Image, path: Path, *arguments: object, **options: object) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fail_to_save)
    code, _, errors = command(
        "translate", tmp_path / "run", "--direction=A2B", dataset / "testA", "--out", tmp_path / "out"
    )
    assert code == 2
    assert "cannot be written (No space left on device; it needs more" in errors
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["manifest.jsonl"]


def test_blocks_by_kind(command) -> None:
    code, output, _ = command("blocks")
    assert code == 0
    assert [line.partition(":")[0] for line in output.splitlines()] == list(REGISTRIES)
    assert "generators: resnet, unet" in output
    assert command("blocks", "image_pools")[1] == "image_pools: history, none\n"


def test_show_describes_a_block(command) -> None:
    code, output, _ = command("blocks", "show", "resnet")
    assert code == 0
    assert re.search(r"blocks +int, ≥ 1 +9 +Residual blocks", output)
    code, output, _ = command("blocks", "show", "cyclegan")
    assert "cyclegan, one of systems" in output
    assert "cyclegan, one of recipes" in output
    assert re.search(r"generator +one of generators +required", output)


def test_plugins_and_recipes(command) -> None:
    code, output, _ = command("plugins")
    assert code == 0
    assert re.search(r"gantoolkit +\S+ +generators +resnet +ok", output)
    code, output, _ = command("recipes")
    assert code == 0
    assert re.search(r"cyclegan +CycleGAN with the paper's settings", output)
    assert re.search(r"demo +A small CycleGAN that trains on a CPU in minutes", output)


def test_help_and_version(command) -> None:
    assert "gantoolkit 0" in command("--version")[1]
    help_text = command("--help")[1]
    assert all(
        name in help_text for name in ("train", "translate", "demo", "blocks", "plugins", "recipes", "Exit codes")
    )


def test_command_line_page_is_up_to_date() -> None:
    page = Path(__file__).parents[2] / "docs" / "reference" / "cli.md"
    # In its own process: the usage lines depend on how the program was started.
    code = "from gantoolkit.cli.app import app; print(app.generate_docs(), end='')"
    expected = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert page.read_text(encoding="utf-8") == expected, f"remove {page.name} and run `make docs/reference/{page.name}`"


class TestDemoSet:
    def test_dataset_has_ground_truth(self, tmp_path: Path) -> None:
        pytest.importorskip("skimage")
        from gantoolkit.data import open_dataset, read_image
        from gantoolkit.demo import make_demo_set

        root = make_demo_set(tmp_path / "photographs", crops=10)
        dataset = open_dataset(root)
        assert len(dataset.files("A")) == len(dataset.files("B")) == 10
        pairs = open_dataset(root, split="test", pairing="paired")
        assert len(pairs.files("A")) == 28 + 54
        # Both prints are linear in the luminance, so each determines the other up to rounding.
        for path_A, path_B in zip(pairs.files("A")[:5], pairs.files("B")[:5], strict=True):
            sepia, cyanotype = (np.asarray(read_image(path), dtype=float) / 255 for path in (path_A, path_B))
            luminance = (sepia[..., 1] - 0.06) / (0.93 - 0.06)
            expected = 0.08 + luminance * (1.0 - 0.08)
            assert np.abs(cyanotype[..., 1] - expected).max() < 1.6 / 255
        contents = {path: path.read_bytes() for path in root.rglob("*.png")}
        assert make_demo_set(tmp_path / "again", crops=10)
        for path, content in contents.items():
            assert (tmp_path / "again" / path.relative_to(root)).read_bytes() == content

    def test_demo_trains_and_scores(self, command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("skimage")
        from gantoolkit.demo import make_demo_set, session

        small = session.find_recipe("demo").swap({"training.epochs": 1, "generator.width": 4, "generator.blocks": 1})
        monkeypatch.setattr(session, "find_recipe", lambda name, changes: small.swap(changes))
        monkeypatch.setattr(session, "make_demo_set", lambda root: make_demo_set(root, crops=16))
        code, output, _ = command("demo", "--set", "generator.width=5", "--out", tmp_path / "demo")
        assert code == 0
        assert "width = 5" in (tmp_path / "demo" / "run" / "recipe.toml").read_text()
        assert "sepia → cyanotype" in output
        results = json.loads((tmp_path / "demo" / "demo.json").read_text())
        assert results["step"] == 8
        # The score of the unchanged input does not depend on the network.
        assert results["psnr"]["A2B"]["input"] == pytest.approx(13.9, abs=1)
        for name in ("demo.png", "photograph.png"):
            with Image.open(tmp_path / "demo" / name) as picture:
                assert min(picture.size) > 300


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full exists only on Linux")
def test_run_continues_when_its_output_is_not_writable(dataset: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "gantoolkit", "train", "cyclegan", "--data", str(dataset), *TINY]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            [*command, "--out", str(tmp_path / "full")],
            stdout=full,
            stderr=subprocess.PIPE,
            env=environment,
            check=False,
        )
    assert result.returncode == 0, result.stderr
    read_end, write_end = os.pipe()
    os.close(read_end)  # the reader has closed the pipe
    result = subprocess.run(
        [*command, "--out", str(tmp_path / "pipe")],
        stdout=write_end,
        stderr=subprocess.PIPE,
        env=environment,
        check=False,
    )
    os.close(write_end)
    assert result.returncode == 0, result.stderr
    for name in ("full", "pipe"):
        assert (tmp_path / name / "report.html").is_file()

"""The benchmarks run at a small size and write what the page on performance reads; no figure of them is looked at."""

import argparse
import importlib.util
import json
import random
import re
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
import torch

from benchmarks import soak
from benchmarks.fuzz import TARGETS

ROOT = Path(__file__).parents[1]


def run(module: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"benchmarks.{module}", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def page() -> ModuleType:
    """The hook that makes tables of results."""
    spec = importlib.util.spec_from_file_location("results_hook", ROOT / "docs" / "hooks" / "results.py")
    assert spec is not None
    assert spec.loader is not None
    hook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hook)
    return hook


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("training", ["--side", 32, "--rounds", 1, "--device", "cpu"]),
        ("inference", ["--side", 32, "--rounds", 1, "--device", "cpu"]),
        ("scaling", ["--sides", 32, "--rounds", 1, "--device", "cpu"]),
        ("tiles", ["--sides", 96, "--tile", 64, "--width", 4, "--blocks", 1, "--device", "cpu"]),
        ("serving", ["--clients", 3, "--requests", 1, "--queue", 2, "--side", 32]),
        (
            "data",
            ["--images", 4, "--width", 40, "--height", 40, "--side", 36, "--crop", 32, "--batches", 3, "--steps", 2],
        ),
    ],
    ids=["training", "inference", "scaling", "tiles", "serving", "data"],
)
def test_a_benchmark_writes_what_the_page_shows(module, arguments, page, tmp_path, monkeypatch) -> None:
    more = ["--rounds", 1, "--networks", 4, "--device", "cpu"] if module == "data" else []
    done = run(module, *arguments, *more, "--out", tmp_path / "made.json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout[done.stdout.index("{") :]) == json.loads((tmp_path / "made.json").read_text())
    monkeypatch.setattr(page, "RESULTS", tmp_path)
    shown = page.show("made")
    assert shown.count("\n|") >= 2
    assert torch.__version__ in shown


def test_every_result_has_its_table_and_what_is_missing_is_said_to_be(page) -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").rglob("*.md")))
    names = re.findall(r"<!-- result: ([\w-]+) -->", text)
    made = page.on_page_markdown(text)
    assert len(names) >= 4
    assert "<!--" not in made
    missing = [name for name in names if not (page.RESULTS / f"{name}.json").is_file()]
    assert made.count("*Not measured yet.*") == len(missing)
    for name in names:
        assert f"benchmarks/results/{name}.json" in text, f"no command makes {name}"


def test_the_folder_of_the_official_implementation_is_looked_at_first(tmp_path: Path) -> None:
    done = run("training", "--peer", tmp_path, "--side", 32)
    assert done.returncode == 1
    assert "holds no models/cycle_gan_model.py" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_slope_of_a_soak_is_that_within_its_lives() -> None:
    """Lives at different heights, each growing by 12 MB an hour: pooled, not through them all."""
    lives = [([0.0, 0.1, 0.2, 0.3], [base + 1.2 * step for step in range(4)]) for base in (900.0, 100.0, 500.0)]
    assert soak.pooled_slope(lives) == pytest.approx(12)
    assert soak.pooled_slope([([0.0, 0.1], [1.0, 2.0])]) is None


def test_the_table_of_a_soak_shows_each_run_in_both_its_ways(page, tmp_path, monkeypatch) -> None:
    looks = [soak.Look(5.0 * n, 800 + n, 400 + n / 10, 7, 2, 4.0 * n, 50 * n) for n in range(40)]
    lives = [
        soak.Life("0 workers, undisturbed", 0, 2000, "SIGTERM", 143, 200.0, looks),
        soak.Life("0 workers, disturbed", 0, 900, "SIGKILL", -9, 100.0, looks[:20]),
    ]
    described = {
        kind: soak.describe([life], 60.0) for kind, life in zip(("undisturbed", "disturbed"), lives, strict=True)
    }
    runs = {"0 workers": {"steps": 2000, "differences": [], **described}}
    result = soak.summarize(lives, runs, argparse.Namespace(warm_up=60.0), time.monotonic() - 300)
    assert result["signals"] == {"SIGKILL": 1, "SIGTERM": 1}
    assert result["longest_life_minutes"] == pytest.approx(3.3)
    again = soak.describe_again(json.loads(json.dumps(result)), 60.0)
    assert again["lives"] == json.loads(json.dumps(result["lives"]))
    assert again["runs"]["0 workers"]["undisturbed"]["steps"] == 2000
    (tmp_path / "made.json").write_text(json.dumps(result))
    monkeypatch.setattr(page, "RESULTS", tmp_path)
    shown = page.show("made").splitlines()
    assert shown[2] == "| 0 workers, undisturbed | 1 | 3 | 2,000 | +72.0 | +0.0 | 12.50 | 12.50 |  |"
    assert shown[3].endswith("| 0 |")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize(("module", "arguments"), [("gpu", ["--out", "results"]), ("kernels", [])])
def test_without_a_gpu_what_is_for_one_says_so(module: str, arguments: list[str]) -> None:
    done = run(module, *arguments)
    assert done.returncode == 2
    assert "CUDA" in done.stderr
    assert "Traceback" not in done.stderr


def test_fuzzing_begins_with_real_files_and_says_what_it_lacks(tmp_path: Path) -> None:
    if importlib.util.find_spec("atheris") is None:
        done = run("fuzz", "recipe", "--seconds", 1)
        assert done.returncode == 1
        assert done.stderr == "fuzzing needs atheris, which brings libFuzzer: pip install atheris\n"
    else:
        done = run("fuzz", "image", "--seconds", 3, "--corpus", tmp_path, "--out", tmp_path / "made.json")
        assert done.returncode == 0, done.stderr
        assert json.loads((tmp_path / "made.json").read_text())["targets"]["image"]["findings"] == []
    assert run("fuzz").returncode == 2


def test_the_files_that_fuzzing_begins_with_are_read(tmp_path: Path) -> None:
    for name, target in TARGETS.items():
        folder = tmp_path / name
        folder.mkdir()
        target.make_seeds(folder)
        seeds = sorted(folder.iterdir())
        assert len(seeds) >= 12
        chance = random.Random(0)
        for seed in seeds:
            content = seed.read_bytes()
            assert len(content) <= target.longest
            changed = [target.mutate(content, chance, lambda data, longest: data[::-1][:longest]) for _ in range(5)]
            assert any(each != content for each in changed)

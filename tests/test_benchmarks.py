"""Benchmarks run at a small size, and their results are shown in the documentation. Measured values are not checked."""

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
SMALL_IMAGES = ("--images", 4, "--width", 40, "--height", 40, "--side", 36, "--crop", 32)


def run(module: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"benchmarks.{module}", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def page() -> ModuleType:
    """The hook that renders results as tables."""
    spec = importlib.util.spec_from_file_location("results_hook", ROOT / "docs" / "hooks" / "results.py")
    assert spec is not None
    assert spec.loader is not None
    hook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hook)
    return hook


@pytest.mark.slow(reason="runs each benchmark in a subprocess: up to 20 s each")
@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("training", ["--side", 32, "--rounds", 1, "--device", "cpu"]),
        ("inference", ["--side", 32, "--rounds", 1, "--device", "cpu"]),
        ("scaling", ["--sides", 32, "--rounds", 1, "--device", "cpu"]),
        ("tiles", ["--sides", 96, "--tile", 64, "--width", 4, "--blocks", 1, "--device", "cpu"]),
        ("busy", ["--side", 32, "--rounds", 1, "--processes", 1]),
        ("serving", ["--clients", 3, "--requests", 1, "--queue", 2, "--side", 32]),
        ("data", [*SMALL_IMAGES, "--batches", 3, "--steps", 2, "--rounds", 1, "--networks", 4, "--device", "cpu"]),
    ],
    ids=["training", "inference", "scaling", "tiles", "busy", "serving", "data"],
)
def test_benchmark_result_is_shown_on_the_page(module, arguments, page, tmp_path, monkeypatch) -> None:
    path = tmp_path / "result.json"
    completed = run(module, *arguments, "--out", path)
    assert completed.returncode == 0, completed.stderr
    assert json.loads(completed.stdout[completed.stdout.index("{") :]) == json.loads(path.read_text())
    monkeypatch.setattr(page, "RESULTS", tmp_path)
    table = page.show("result")
    assert table.count("\n|") >= 2
    assert torch.__version__ in table


def test_every_result_has_a_table_or_is_marked_as_missing(page) -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").rglob("*.md")))
    names = re.findall(r"<!-- result: ([\w-]+) -->", text)
    output = page.on_page_markdown(text)
    assert len(names) >= 4
    assert "<!--" not in output
    missing = [name for name in names if not (page.RESULTS / f"{name}.json").is_file()]
    assert output.count("*Not measured yet.*") == len(missing)
    for name in names:
        assert f"benchmarks/results/{name}.json" in text, f"no command produces {name}"


def test_gpu_results_have_tables_once_they_are_recorded(page, tmp_path, monkeypatch) -> None:
    assert page.on_page_markdown("<!-- gpu results -->") == "**No GPU results have been recorded yet.**"
    machine = {"device": "a GPU", "torch": "2", "triton": "3", "python": "3.12", "date": "2026-01-01"}
    rates = {"peer": 10.0, "peer fp32": 5.0, "bf16 captured": 40.0}
    speed = {
        "what": "training step of CycleGAN",
        "side": 256,
        "batch": 1,
        "median_milliseconds": {name: 1000 / rate for name, rate in rates.items()},
        "pairs_per_second": rates,
        "times_as_fast_as_peer": {"peer fp32": 0.5, "bf16 captured": 4.0},
        "peak_megabytes": dict.fromkeys(rates, 1000.0),
        "reserved_megabytes": dict.fromkeys(rates, 2000.0),
    }
    rows = [
        {"stage": "machine", "status": "started"},
        {"stage": "machine", **machine, "copy_gigabytes_per_second": 3000.0, "summary": "a GPU"},
        {"stage": "machine", "status": "passed", "exit_code": 0, "seconds": 10.2},
        {"stage": "training-1", "status": "started"},
        {"stage": "training-1", **speed, "summary": "fast"},
    ]
    (tmp_path / "gpu.jsonl").write_text("\n".join(map(json.dumps, rows)))
    monkeypatch.setattr(page, "RESULTS", tmp_path)
    lines = page.on_page_markdown("<!-- gpu results -->").splitlines()
    assert lines[2:4] == ["| `machine` | passed | 10 | a GPU |", "| `training-1` | started |  | fast |"]
    assert "| official fp32 | 200.0 | 5.00 | 0.50 | 1,000 | 2,000 |" in lines
    assert "| bf16 captured | 25.0 | 40.00 | 4.00 | 1,000 | 2,000 |" in lines


def test_benchmark_refuses_a_folder_without_the_official_implementation(tmp_path: Path) -> None:
    completed = run("training", "--peer", tmp_path, "--side", 32)
    assert completed.returncode == 1
    assert "contains no models/cycle_gan_model.py" in completed.stderr
    assert "Traceback" not in completed.stderr


def test_soak_slope_is_pooled_over_lives() -> None:
    """Lives with different intercepts that all grow by 12 MB per hour."""
    lives = [([0.0, 0.1, 0.2, 0.3], [base + 1.2 * step for step in range(4)]) for base in (900.0, 100.0, 500.0)]
    assert soak.pooled_slope(lives) == pytest.approx(12)
    assert soak.pooled_slope([([0.0, 0.1], [1.0, 2.0])]) is None


def test_soak_table_shows_undisturbed_and_disturbed_runs(page, tmp_path, monkeypatch) -> None:
    looks = [soak.Look(5.0 * n, 800 + n, 400 + n / 10, 7, 2, 4.0 * n, 50 * n) for n in range(40)]
    lives = [
        soak.Life("0 workers, undisturbed", 0, 2000, "SIGTERM", 143, 200.0, looks),
        soak.Life("0 workers, disturbed", 0, 900, "SIGKILL", -9, 100.0, looks[:20]),
    ]
    descriptions = {
        kind: soak.describe([life], 60.0) for kind, life in zip(("undisturbed", "disturbed"), lives, strict=True)
    }
    runs = {"0 workers": {"steps": 2000, "differences": [], **descriptions}}
    result = soak.summarize(lives, runs, argparse.Namespace(warm_up=60.0), time.monotonic() - 300)
    assert result["signals"] == {"SIGKILL": 1, "SIGTERM": 1}
    assert result["longest_life_minutes"] == pytest.approx(3.3)
    recomputed = soak.describe_again(json.loads(json.dumps(result)), 60.0)
    assert recomputed["lives"] == json.loads(json.dumps(result["lives"]))
    assert recomputed["runs"]["0 workers"]["undisturbed"]["steps"] == 2000
    (tmp_path / "result.json").write_text(json.dumps(result))
    monkeypatch.setattr(page, "RESULTS", tmp_path)
    lines = page.show("result").splitlines()
    assert lines[2] == "| 0 workers, undisturbed | 1 | 3 | 2,000 | +72.0 | +0.0 | 12.50 | 12.50 |  |"
    assert lines[3].endswith("| 0 |")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a CUDA device")
@pytest.mark.parametrize(("module", "arguments"), [("gpu", ["--out", "results"]), ("kernels", [])])
def test_gpu_benchmarks_report_a_missing_gpu(module: str, arguments: list[str]) -> None:
    completed = run(module, *arguments)
    assert completed.returncode == 2
    assert "CUDA" in completed.stderr
    assert "Traceback" not in completed.stderr


def test_fuzzing_finds_nothing_in_valid_files_or_reports_missing_atheris(tmp_path: Path) -> None:
    if importlib.util.find_spec("atheris") is None:
        completed = run("fuzz", "recipe", "--seconds", 1)
        assert completed.returncode == 1
        assert completed.stderr == "fuzzing requires atheris, which includes libFuzzer: pip install atheris\n"
    else:
        completed = run("fuzz", "image", "--seconds", 3, "--corpus", tmp_path, "--out", tmp_path / "result.json")
        assert completed.returncode == 0, completed.stderr
        assert json.loads((tmp_path / "result.json").read_text())["targets"]["image"]["findings"] == []
    assert run("fuzz").returncode == 2


def test_seed_files_are_valid_and_mutated(tmp_path: Path) -> None:
    for name, target in TARGETS.items():
        folder = tmp_path / name
        folder.mkdir()
        target.make_seeds(folder)
        seeds = sorted(folder.iterdir())
        assert len(seeds) >= 12
        rng = random.Random(0)
        for seed in seeds:
            content = seed.read_bytes()
            assert len(content) <= target.max_bytes
            mutations = [target.mutate(content, rng, lambda data, max_bytes: data[::-1][:max_bytes]) for _ in range(5)]
            assert any(mutation != content for mutation in mutations)

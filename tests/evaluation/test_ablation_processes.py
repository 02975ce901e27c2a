"""`gantoolkit ablate` trains several runs at once, each in its own process: stopped, resumed, failing, on several devices."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from _helpers.patience import PATIENCE
from _helpers.small import make_dataset
from fakecuda.building import MissingRequirementError, environment
from safetensors.torch import load_file

from gantoolkit.runs.log import read_log

pytestmark = pytest.mark.slow(reason="trains several runs in processes of their own")

DESIGN = """
metrics = ["psnr"]

[settings]
"generator.width" = 4
"generator.blocks" = 1
"discriminator.width" = 4
"discriminator.layers" = 1
"data.load_size" = 20
"data.crop_size" = 16
"training.log_every" = 2
"training.deterministic" = true

[[rows]]
recipe = "ablations/gan_alone"
[[rows]]
recipe = "cyclegan"
"""
FAILING = """
[[rows]]
recipe = "feature_gan"
settings = { direction = "A2B", "self_regularization_loss.features.weights" = "file:{data}/missing.safetensors" }
"""


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    return make_dataset(tmp_path / "pairs", count_A=3, count_B=3)


def arguments_of(pairs: Path, out: Path, design: str, *, epochs: int, device: str = "cpu") -> list[str]:
    path = out.with_suffix(".toml")
    path.write_text(design)
    words = ["ablate", "--design", path, "--data", pairs, "--out", out, "--jobs", 2, "--device", device]
    return [*map(str, words), "--set", f"training.epochs={epochs}"]


def test_a_row_that_fails_does_not_stop_the_others(command, pairs: Path, tmp_path: Path) -> None:
    out = tmp_path / "table"
    arguments = arguments_of(pairs, out, DESIGN + FAILING, epochs=2)
    code, output, _ = command(*arguments, "--minutes", 0.001)  # is over before anything is trained
    assert code == 0
    assert "no run has a score yet" in output
    assert "3 of 3 runs are not finished; the same command continues from here" in output
    code, output, stderr = command(*arguments)
    assert code == 3
    assert "failed: feature_gan A2B, seed 0: " in stderr
    assert "missing.safetensors" in stderr
    assert "2 of 3 runs at once" in output
    assert "1 of 3 runs are not finished" in output
    rows = json.loads((out / "table.json").read_text())
    assert {row["recipe"] for row in rows} == {"ablations/gan_alone", "cyclegan"}
    assert {(row["step"], row["steps"]) for row in rows} == {(6, 6)}
    assert all(row["hardware"].startswith("cpu, ") for row in rows)
    assert "cyclegan: 6 of 6 steps in " in (out / "report.html").read_text()


def test_a_plan_trains_nothing(command, pairs: Path, tmp_path: Path) -> None:
    out = tmp_path / "table"
    code, output, _ = command(*arguments_of(pairs, out, DESIGN, epochs=2), "--plan", "--minutes", 8)
    assert code == 0
    assert "not measured" not in output
    assert "at the measured speed they need about 1 call of 8 minutes" in output
    assert not out.exists()


def test_a_terminated_command_saves_every_run_and_resumes_exactly(pairs: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    stopped, whole = tmp_path / "stopped", tmp_path / "whole"

    def start(out: Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "gantoolkit", *arguments_of(pairs, out, DESIGN, epochs=100)]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    runs = [Path("ablations/gan_alone/seed-0"), Path("cyclegan/seed-0")]
    process = start(stopped)
    while process.poll() is None and not all(read_log(stopped / run / "log.jsonl") for run in runs):
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 143, output
    assert "the same command continues from here" in output
    for run in runs:
        assert "terminated at step" in (stopped / run / "ablate.log").read_text()
    for out in (stopped, whole):
        process = start(out)
        output, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, output
    for run in runs:
        for direction in ("A2B", "B2A"):
            file = run / "generators" / f"{direction}.safetensors"
            expected, weights = load_file(whole / file), load_file(stopped / file)
            assert all(weights[name].equal(tensor) for name, tensor in expected.items())


IGNORE_VALUES = """
import sys

if "gantoolkit" in " ".join(sys.orig_argv):
    from fakecuda.values import ignore_values

    ignore_values()
"""


def test_runs_share_two_devices_with_captured_steps(pairs: Path, tmp_path: Path) -> None:
    """On the stand-in for CUDA, where values mean nothing: in every process, Python imports a module that ignores them."""
    try:
        variables = environment(devices=2)
    except MissingRequirementError as error:
        pytest.skip(str(error))
    (tmp_path / "sitecustomize.py").write_text(IGNORE_VALUES)
    tests = Path(__file__).parents[1]
    variables |= {"PYTHONPATH": os.pathsep.join(map(str, (tmp_path, tests, tests.parent))), "OMP_NUM_THREADS": "1"}
    out = tmp_path / "table"
    words = arguments_of(pairs, out, DESIGN.replace('"training.deterministic" = true', ""), epochs=4, device="cuda")
    command = [sys.executable, "-m", "gantoolkit", *words, "--set", "training.capture=true"]
    process = subprocess.run(
        command, env={**os.environ, **variables}, capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    assert process.returncode == 0, process.stdout + process.stderr
    assert "2 of 2 runs at once; cuda:0 has 80 GB free, cuda:1 has 80 GB free" in process.stdout
    logs = [path.read_text() for path in out.rglob("ablate.log")]
    assert len(logs) == 2
    assert not [log for log in logs if "warning: training.capture" in log]  # the step could not be captured
    rows = json.loads((out / "table.json").read_text())
    assert {(row["step"], row["steps"]) for row in rows} == {(12, 12)}
    assert all("H100" in row["hardware"] for row in rows)

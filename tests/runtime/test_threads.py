import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import gantoolkit
from gantoolkit.recipes import Recipe
from gantoolkit.runtime.threads import time_threads, warn_of_busy_cores, warn_of_spinning_threads

LARGE, SMALL = nn.Linear(1000, 1000), nn.Linear(10, 10)


@pytest.mark.parametrize(
    ("environment", "first", "expected"),
    [
        ({}, "gantoolkit", "PASSIVE 4000"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "gantoolkit", "ACTIVE 4000"),
        ({}, "torch, gantoolkit", "None None"),
    ],
    ids=["default", "environment", "after torch"],
)
def test_openmp_defaults_are_set_before_torch_is_loaded(environment, first, expected) -> None:
    code = f"import {first}, os; print(os.environ.get('OMP_WAIT_POLICY'), os.environ.get('GOMP_SPINCOUNT'))"
    process = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert process.stdout.strip() == expected


class TestBusyCores:
    @pytest.fixture(autouse=True)
    def _threads(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch, "get_num_threads", lambda: 4)

    def replace_times(self, monkeypatch: pytest.MonkeyPatch, one: float, four: float) -> None:
        monkeypatch.setattr("gantoolkit.runtime.threads.time_threads", lambda counts: {1: one, 4: four})

    @pytest.mark.parametrize(
        ("policy", "remedy"), [("PASSIVE", "OMP_NUM_THREADS=1"), ("", "OMP_WAIT_POLICY=PASSIVE GOMP_SPINCOUNT=4000")]
    )
    def test_threads_that_are_slower_than_one_are_reported(
        self, policy: str, remedy: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OMP_WAIT_POLICY", policy)
        self.replace_times(monkeypatch, 1.0, 6.5)
        with pytest.warns(UserWarning, match=rf"with 4 threads, .* takes 6\.5 times as long .* {remedy}$"):
            warn_of_busy_cores([SMALL, LARGE])

    def test_threads_that_are_faster_are_not_reported(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.replace_times(monkeypatch, 1.0, 0.9)
        warn_of_busy_cores([LARGE])

    def test_nothing_is_measured_for_small_networks_or_one_thread(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("gantoolkit.runtime.threads.time_threads", lambda _: pytest.fail("threads were timed"))
        warn_of_busy_cores([SMALL])
        monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
        warn_of_busy_cores([LARGE])

    def test_run_reports_them(self, tiny: Recipe, dataset: Path, tmp_path: Path, monkeypatch) -> None:
        self.replace_times(monkeypatch, 1.0, 2.0)
        monkeypatch.setattr("gantoolkit.runtime.threads._MIN_PARAMETERS", 1)
        with pytest.warns(UserWarning, match=r"takes 2\.0 times as long"):
            gantoolkit.train(tiny, dataset, tmp_path / "run", stop_at=1)

    def test_translators_and_scores_report_spinning_threads_once(
        self, tiny: Recipe, dataset: Path, tmp_path: Path, monkeypatch, recwarn
    ) -> None:
        run = gantoolkit.train(tiny, dataset, tmp_path / "run", stop_at=1)
        self.replace_times(monkeypatch, 1.0, 2.0)
        monkeypatch.setattr("gantoolkit.runtime.threads._MIN_PARAMETERS", 1)
        monkeypatch.setattr("gantoolkit.runtime.threads._timed_processes", set())
        monkeypatch.setattr("gantoolkit.runtime.threads._LOAD", tmp_path / "loadavg")
        monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(4))
        (tmp_path / "loadavg").write_text("0.20 0.20 0.20 1/200 4242\n")
        monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
        gantoolkit.load(run.path, "A2B", device="cpu")
        assert not recwarn.list  # nothing else runs
        (tmp_path / "loadavg").write_text("0.20 0.20 0.20 2/200 4242\n")
        monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
        gantoolkit.load(run.path, "A2B", device="cpu")
        assert not recwarn.list  # the threads sleep
        monkeypatch.delenv("OMP_WAIT_POLICY")
        with pytest.warns(
            UserWarning, match="import gantoolkit before torch, or start Python with OMP_WAIT_POLICY=PASSIVE"
        ):
            run.translator("A2B", device="cpu")
        gantoolkit.load(run.path, "B2A", device="cpu")
        assert not recwarn.list

    def test_nothing_is_reported_where_the_load_is_unknown(self, tmp_path: Path, monkeypatch) -> None:
        self.replace_times(monkeypatch, 1.0, 2.0)
        monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
        monkeypatch.setattr("gantoolkit.runtime.threads._LOAD", tmp_path / "none")
        warn_of_spinning_threads(LARGE)


def test_measurement_restores_the_number_of_threads() -> None:
    before = torch.get_num_threads()
    seconds = time_threads((1, 2))
    assert list(seconds) == [1, 2]
    assert all(value > 0 for value in seconds.values())
    assert torch.get_num_threads() == before

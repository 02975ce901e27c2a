"""CUDA's Multi-Process Service is started for the processes of a context, where it works."""

import os
import sys
from pathlib import Path

import pytest

from gantoolkit.runtime.mps import multi_process_service

PIPES = "CUDA_MPS_PIPE_DIRECTORY"


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand-ins for the service's control program and for the process that tries it; the file lists their calls."""
    log = tmp_path / "calls"
    for name, code in (
        ("nvidia-cuda-mps-control", f'echo "control $* $(cat)" >> {log}'),
        ("python", f"echo try >> {log}"),
    ):
        (tmp_path / name).write_text(f"#!/bin/sh\n{code}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv(PIPES, raising=False)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    return log


def test_the_service_ends_with_its_context(calls: Path) -> None:
    with multi_process_service() as sharing:
        assert "side by side" in sharing
        folder = Path(os.environ[PIPES])
        assert folder.is_dir()
        assert calls.read_text().splitlines() == ["control -d ", "try"]
    assert PIPES not in os.environ
    assert not folder.exists()
    assert calls.read_text().splitlines()[2:] == ["control  quit"]


def test_a_service_that_does_not_work_is_not_used(calls: Path, tmp_path: Path) -> None:
    (tmp_path / "python").write_text("#!/bin/sh\nexit 1\n")
    with multi_process_service() as sharing:
        assert sharing == "their kernels take turns on a device: CUDA MPS could not be used (CalledProcessError)"
        assert PIPES not in os.environ
    assert "control  quit" in calls.read_text()


def test_it_is_optional(calls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with multi_process_service(enabled=False) as sharing:
        assert "take turns" in sharing
    monkeypatch.setenv(PIPES, "/elsewhere")  # one that runs already
    with multi_process_service() as sharing:
        assert "side by side" in sharing
        assert os.environ[PIPES] == "/elsewhere"
    assert not calls.exists()
    monkeypatch.delenv(PIPES)
    monkeypatch.setenv("PATH", "")
    with multi_process_service() as sharing:
        assert "is not installed" in sharing

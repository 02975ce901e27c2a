"""What commands print: results are written to files first, and no encoding or full disk ends a command."""

from pathlib import Path

import pytest

import gantoolkit
from gantoolkit.cli import evaluate as evaluate_command
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

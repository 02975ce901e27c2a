"""`gantoolkit evaluate` names what it does not use of the test images, and exits with 3."""

from pathlib import Path

import pytest
from _helpers.small import make_dataset, make_image

import gantoolkit
from gantoolkit.evaluation.tables import read_scores
from gantoolkit.hub.card import make_card
from gantoolkit.recipes import Recipe
from gantoolkit.run import Run


@pytest.fixture
def run(tiny: Recipe, tmp_path: Path) -> Run:
    return gantoolkit.train(tiny, make_dataset(tmp_path / "pairs"), tmp_path / "run", device="cpu", stop_at=1)


def add_frames(data: Path) -> None:
    """Replace the first test image of A by an animation."""
    (data / "testA" / "00.png").unlink()
    frames = [make_image(seed) for seed in (1, 2)]
    frames[0].save(data / "testA" / "00.gif", save_all=True, append_images=frames[1:])


def add_unknown_format(data: Path) -> None:
    (data / "testB" / "05.heic").write_bytes(b"\0\0\0\x18ftypheic")


@pytest.mark.parametrize(
    ("change", "note"),
    [(add_frames, "00.gif has several frames, of which only the first is used"), (add_unknown_format, ".heic")],
    ids=["frames", "format"],
)
def test_what_is_not_used_is_named(change, note: str, command, run: Run, tmp_path: Path) -> None:
    arguments = ("evaluate", run.path, "--out", tmp_path / "scores", "--metric", "l1", "--device", "cpu")
    assert command(*arguments)[0] == 0
    change(run.data)
    code, output, stderr = command(*arguments)
    assert code == 3
    (line,) = [line for line in stderr.splitlines() if line.startswith("note: ")]
    assert note in line
    assert "A → B, 95 % intervals over 2 images" in output
    (scores, *references) = read_scores(tmp_path / "scores" / "scores.json")
    assert scores.notes == scores.passed_over == (line.removeprefix("note: "),)
    assert not any(reference.notes for reference in references)
    assert note in (tmp_path / "scores" / "report.html").read_text()
    assert note not in make_card(run, scores=tmp_path / "scores").text  # a card is public, and the note has a path


def test_a_card_counts_files_that_could_not_be_read(command, run: Run, tmp_path: Path) -> None:
    (run.data / "testA" / "01.png").write_bytes(b"not an image")
    code, _, stderr = command("evaluate", run.path, "--out", tmp_path / "scores", "--metric", "l1", "--device", "cpu")
    assert code == 3
    assert "skipped: " in stderr
    assert (
        "1 test file could not be read, and is not among the images." in make_card(run, scores=tmp_path / "scores").text
    )
    assert "1 file was skipped: " in (tmp_path / "scores" / "report.html").read_text()


def test_runs_on_different_numbers_of_images_state_them(
    command, run: Run, tiny: Recipe, dataset: Path, tmp_path: Path
) -> None:
    other = gantoolkit.train(tiny, dataset, tmp_path / "other", device="cpu", stop_at=1)
    for domain in "AB":
        (other.data / f"test{domain}" / "01.png").unlink()
    paths = (run.path, other.path)
    code, output, _ = command("evaluate", *paths, "--out", tmp_path / "scores", "--metric", "l1", "--device", "cpu")
    assert code == 0
    assert "A → B, 95 % intervals over 1–2 images" in output
    assert [line.split()[1] for line in output.splitlines() if line.startswith(("run ", "other "))] == ["2", "1"] * 2


def test_training_names_what_it_does_not_use_of_the_images_that_it_measures(
    command, tiny: Recipe, tmp_path: Path
) -> None:
    data = make_dataset(tmp_path / "measured")
    add_frames(data)
    (tmp_path / "tiny.toml").write_text(tiny.swap({"metric": "l1", "training.evaluate_every": 2}).to_toml())
    words = ("train", tmp_path / "tiny.toml", "--data", data, "--out", tmp_path / "run", "--stop-at", 2)
    code, output, stderr = command(*words)
    assert code == 3
    assert (output + stderr).count("00.gif has several frames, of which only the first is used") == 1

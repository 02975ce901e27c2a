"""Test images that are not used, or not as pairs: every command that scores or shows images says so."""

from pathlib import Path

from _helpers.small import make_dataset, make_files

import gantoolkit
from gantoolkit.blocks.metrics.palette import find_palette
from gantoolkit.evaluation.segmenter_training import LabeledSet
from gantoolkit.evaluation.study.materials import Materials
from gantoolkit.recipes import Recipe


def test_evaluate_says_why_images_are_not_pairs_and_what_is_not_read(tiny: Recipe, command, tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data", test=3)
    (data / "testB" / "02.png").rename(data / "testB" / "two.png")
    make_files(data, "testA/photo.heic")
    gantoolkit.train(tiny, data, tmp_path / "run", device="cpu", stop_at=1)
    arguments = ("evaluate", tmp_path / "run", "--out", tmp_path / "scores", "--metric", "l1", "--device", "cpu")
    code, _, errors = command(*arguments)
    assert code == 3
    assert "note: the images are not used as pairs: " in errors
    assert "2 files have no partner, testA/02.png first" in errors
    assert "note: testA: 1 file is not read (.heic 1)" in errors


def test_study_names_what_is_not_read(tmp_path: Path) -> None:
    make_files(tmp_path, "real/a.png", "real/b.avif", "fake/a.png")
    problems = Materials.open(tmp_path / "real", {"one": tmp_path / "fake"}).problems
    assert any("1 file is not read (.avif 1)" in problem for problem in problems)


def test_labeled_set_names_what_is_not_read(tmp_path: Path) -> None:
    make_files(tmp_path, "photographs/a.png", "photographs/b.dng", "maps/a.png", "maps/b.xcf")
    notes = LabeledSet.open(tmp_path / "photographs", tmp_path / "maps", find_palette("camvid")).notes
    assert [note.partition(", such")[0].rpartition("/")[2] for note in notes] == [
        "photographs: 1 file is not read (.dng 1)",
        "maps: 1 file is not read (.xcf 1)",
    ]

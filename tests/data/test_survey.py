"""`gantoolkit data check` and `gantoolkit data stats`: statistics of a data set, and its problems."""

import shutil
from pathlib import Path

from _helpers.small import make_dataset, make_image
from PIL import Image

from gantoolkit.cli import main
from gantoolkit.data import open_test_images, read_image
from gantoolkit.data.survey import draw_contact_sheet, find_problems, survey


def test_good_data_set_has_no_problems(dataset: Path, capsys) -> None:
    assert find_problems(survey(dataset)) == []
    assert main(["data", "check", str(dataset)]) == 0
    out = capsys.readouterr().out
    assert "trainA 5, trainB 4, testA 2, testB 2; no problems found" in out
    assert "for recipes that learn without pairs only: 1 file has no partner" in out


def test_every_flaw_is_found(dataset: Path, capsys) -> None:
    (dataset / "trainA" / "broken.jpg").write_bytes(b"not an image")
    Image.new("RGB", (50, 50), "teal").save(dataset / "trainA" / "flat.png")
    shutil.copy(dataset / "trainA" / "00.png", dataset / "trainA" / "copy.png")
    shutil.copy(dataset / "trainA" / "01.png", dataset / "testA" / "leak.png")
    shutil.copy(dataset / "trainA" / "02.png", dataset / "trainB" / "both.png")
    make_image(50, (20, 20)).save(dataset / "trainB" / "small.png")
    make_image(51, (200, 50)).save(dataset / "trainB" / "long.png")
    make_image(52).convert("L").save(dataset / "trainB" / "gray.png")
    texts = "\n".join(problem.text for problem in find_problems(survey(dataset)))
    for expected in (
        "trainA: 1 of 8 files cannot be read; the first, ",
        "trainA: 1 images show a single color",
        "trainA: 1 images have duplicates",
        "1 images are in trainA and in trainB, so the domains overlap",
        "1 images are in trainA and in testA, so test scores are too good",
        "trainB: 1 images are smaller than 32 pixels, such as 20×20",
        "trainB: 1 images have an aspect ratio above 1.5, such as 200×50",
        "trainB: 1 of 8 images are gray",
    ):
        assert expected in texts
    assert main(["data", "check", str(dataset)]) == 3
    assert capsys.readouterr().out.count("flaw: ") == 8


def test_test_images_of_one_domain_are_not_used(dataset: Path) -> None:
    shutil.rmtree(dataset / "testB")
    (dataset / "test").mkdir()  # ignored beside trainA and trainB
    make_image(1, (41, 20)).save(dataset / "test" / "odd.png")
    data = survey(dataset)
    assert list(data.domains) == ["trainA", "trainB"]
    assert [problem.text for problem in find_problems(data)] == [
        "testA is not used: the other domain has no test images"
    ]
    assert open_test_images(dataset) is None


def test_identical_domains_are_an_error(tmp_path: Path, capsys) -> None:
    root = make_dataset(tmp_path / "set", count_A=3, count_B=0, test=0)
    shutil.copytree(root / "trainA", root / "trainB")
    assert main(["data", "check", str(root)]) == 2
    assert "error: 3 images are in trainA and in trainB" in capsys.readouterr().out


def test_stats_command_draws_a_contact_sheet(dataset: Path, tmp_path: Path, capsys) -> None:
    assert main(["data", "stats", str(dataset), "--sheet", str(tmp_path / "sheet.png")]) == 0
    out = capsys.readouterr().out
    assert "trainA" in out
    assert "40×36" in out
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (8 * 96, 4 * (20 + 2 * 96))
    small = draw_contact_sheet(survey(dataset), columns=4, rows=1, side=40)
    # The first cell shows the first image of trainA.
    expected = read_image(dataset / "trainA" / "00.png")
    expected.thumbnail((36, 36), Image.Resampling.LANCZOS)
    left, top = (40 - expected.width) // 2, 20 + (40 - expected.height) // 2
    assert small.crop((left, top, left + expected.width, top + expected.height)) == expected


def test_missing_data_set(tmp_path: Path, capsys) -> None:
    assert main(["data", "check", str(tmp_path / "nothing")]) == 2
    assert "no such folder" in capsys.readouterr().err

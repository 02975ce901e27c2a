"""Pairs side by side: `gantoolkit data pair`, and reading the halves again."""

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from _helpers.small import make_dataset, make_files, make_image
from PIL import Image

from gantoolkit.data import open_dataset, read_image
from gantoolkit.data.images import ImageFile
from gantoolkit.data.pairs import join_pairs
from gantoolkit.errors import DataError


def test_joined_pairs_are_split_again(tmp_path: Path) -> None:
    root = make_dataset(tmp_path / "set", count_A=10, count_B=10, test=0)
    pairs = join_pairs(root / "trainA", root / "trainB", tmp_path / "pairs", test_share=0.2)
    assert pairs.counts == {"train": 8, "test": 2}
    assert pairs.notes == ()
    data = open_dataset(tmp_path / "pairs", pairing="paired")
    assert data.pairing == "paired"
    for A, B in zip(data.files("A"), data.files("B"), strict=True):
        assert A.half
        assert read_image(A) == read_image(root / "trainA" / f"{A.path.stem}.png")
        assert read_image(B) == read_image(root / "trainB" / f"{A.path.stem}.png")
        assert read_image(A, 1).mode == "L"
    again = join_pairs(root / "trainA", root / "trainB", tmp_path / "again", test_share=0.2)
    assert again == pairs
    names = [sorted(path.name for path in (tmp_path / folder / "test").iterdir()) for folder in ("pairs", "again")]
    assert names[0] == names[1]


def test_pairs_that_cannot_be_joined(tmp_path: Path) -> None:
    root = make_dataset(tmp_path / "set", count_A=2, count_B=2, test=0)
    make_image(9).save(root / "trainA" / "alone.png")
    with pytest.raises(
        DataError, match=r"1 file has no partner, .*trainA/alone.png first; the files of a pair have the"
    ):
        join_pairs(root / "trainA", root / "trainB", tmp_path / "out")
    (root / "trainA" / "alone.png").unlink()
    make_image(9, (30, 30)).save(root / "trainB" / "01.png")
    with pytest.raises(DataError, match=r"01: is 40×36 in A and 30×30 in B; --resize resizes B to the size of A"):
        join_pairs(root / "trainA", root / "trainB", tmp_path / "out1")
    join_pairs(root / "trainA", root / "trainB", tmp_path / "out2", resize=True)
    assert read_image(tmp_path / "out2" / "train" / "01.png").size == (80, 36)
    with pytest.raises(DataError, match="out2: is not empty"):
        join_pairs(root / "trainA", root / "trainB", tmp_path / "out2")
    make_image(9).save(root / "trainA" / "01.jpg")
    with pytest.raises(DataError, match=r"1 file has no partner, .*01\.jpg first: .*01\.png and .*01\.png are a pair"):
        join_pairs(root / "trainA", root / "trainB", tmp_path / "out3")
    (root / "trainB" / "01.png").rename(root / "trainB" / "01.tif")
    with pytest.raises(DataError, match=r"01\.jpg and .*01\.png share the name '01', so the partner of .*01\.tif"):
        join_pairs(root / "trainA", root / "trainB", tmp_path / "out4")


def test_label_maps_can_be_resized_without_mixing_colors(tmp_path: Path) -> None:
    make_files(tmp_path, "A/a.png")
    (tmp_path / "B").mkdir()
    Image.fromarray(np.array([[0, 200], [90, 0]], dtype=np.uint8)).save(tmp_path / "B" / "a.png")
    join_pairs(tmp_path / "A", tmp_path / "B", tmp_path / "out", resize=True, resample="nearest")
    right = np.asarray(read_image(ImageFile(tmp_path / "out" / "train" / "a.png", "right")))
    assert set(np.unique(right)) == {0, 90, 200}


def test_files_in_subfolders_become_one_folder_that_can_be_opened(tmp_path: Path) -> None:
    make_files(tmp_path, "A/x/1.png", "A/y/1.png", "A/2.png", "A/2.jpg", "B/x/1.png", "B/y/1.png", "B/2.png", "B/2.jpg")
    join_pairs(tmp_path / "A", tmp_path / "B", tmp_path / "out")
    names = sorted(path.name for path in (tmp_path / "out" / "train").iterdir())
    assert names == ["2.jpg.png", "2.png.png", "x_1.png", "y_1.png"]
    assert len(open_dataset(tmp_path / "out", pairing="paired").files("A")) == 4
    make_files(tmp_path, "A/x_1.png", "B/x_1.png")
    with pytest.raises(
        DataError, match=r"x_1\.png and .*x/1\.png would both be written|x/1\.png and .*x_1\.png would both"
    ):
        join_pairs(tmp_path / "A", tmp_path / "B", tmp_path / "again")


def test_command_names_what_is_not_used(command, tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
    make_files(tmp_path, "A/1.png", "A/2.heic", f"A/{composed}.png", "B/1.png", f"B/{decomposed}.png")
    code, output, errors = command("data", "pair", tmp_path / "A", tmp_path / "B", "--out", tmp_path / "out")
    assert code == 3
    assert "2 pairs in" in output
    assert "A: 1 file is not read (.heic 1), such as 2.heic; convert it to PNG or TIFF" in errors


def test_image_of_odd_width_cannot_be_split(tmp_path: Path) -> None:
    make_image(1, (41, 20)).save(tmp_path / "odd.png")
    with pytest.raises(
        DataError, match="is 41 pixels wide; two images of equal width side by side need an even number"
    ):
        read_image(ImageFile(tmp_path / "odd.png", "left"))

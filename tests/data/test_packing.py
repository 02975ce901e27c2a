"""`gantoolkit data pack`: a small copy of a data set with label maps in exact colors."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gantoolkit.blocks.metrics.palette import find_palette
from gantoolkit.data import open_dataset
from gantoolkit.data.packing import pack_dataset
from gantoolkit.data.pixels import read_image
from gantoolkit.errors import DataError

PALETTE = find_palette("cityscapes")


@pytest.fixture
def streets(tmp_path: Path) -> Path:
    """Pairs whose label maps were damaged by JPEG."""
    root, rng = tmp_path / "streets", np.random.default_rng(0)
    colors = np.array(PALETTE.colors + PALETTE.ignored, dtype=np.uint8)
    for split, count in (("train", 5), ("test", 3)):
        for domain in "AB":
            (root / f"{split}{domain}").mkdir(parents=True)
        for number in range(count):
            labels = colors[rng.integers(0, len(colors), (4, 4))].repeat(16, 0).repeat(16, 1)
            Image.fromarray(labels).save(root / f"{split}A" / f"{number}.jpg", quality=90)
            photograph = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
            Image.fromarray(photograph).save(root / f"{split}B" / f"{number}.png")
    return root


def test_label_maps_have_exact_colors_and_the_right_classes(streets: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert pack_dataset(streets, out, side=40, test_side=32, palette=PALETTE).counts == {"train": 5, "test": 3}
    colors = set(PALETTE.colors) | set(PALETTE.ignored)
    for number in range(5):
        packed = read_image(out / "trainA" / f"{number:05d}.png")
        assert packed.size == (40, 40)
        pixels = np.asarray(packed)
        assert {tuple(map(int, color)) for color in pixels.reshape(-1, 3)} <= colors
        centers = np.asarray(read_image(streets / "trainA" / f"{number}.jpg"))[8::16, 8::16].astype(int)
        assert np.abs(pixels[5::10, 5::10].astype(int) - centers).max() < 16  # JPEG's errors only
    assert read_image(out / "testA" / "00000.png").size == (32, 32)
    assert read_image(out / "trainB" / "00000.jpg").size == (40, 40)
    assert len(open_dataset(out, pairing="paired").files("A")) == 5


def test_at_most_so_many_pairs_are_packed(streets: Path, tmp_path: Path) -> None:
    reports: list[tuple[int, int]] = []
    packed_set = pack_dataset(
        streets,
        tmp_path / "out",
        side=16,
        train=2,
        test=1,
        progress=lambda packed, total: reports.append((packed, total)),
    )
    assert packed_set.counts == {"train": 2, "test": 1}
    assert reports[-1] == (6, 6)
    assert sorted(path.name for path in (tmp_path / "out" / "trainA").iterdir()) == ["00000.jpg", "00001.jpg"]


def test_problems_are_named(streets: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not empty"):
        pack_dataset(streets, streets, side=16)
    (streets / "trainB" / "0.png").rename(streets / "trainB" / "other.png")
    with pytest.raises(DataError, match=r"2 files have no partner, trainA/0\.jpg first"):
        pack_dataset(streets, tmp_path / "out", side=16)


def test_command(command, streets: Path, tmp_path: Path) -> None:
    arguments = ("data", "pack", streets, "--out", tmp_path / "out", "--side", 16, "--palette", "cityscapes")
    code, output, _ = command(*arguments, "--train", 4)
    assert code == 0
    assert "4 pairs in train, 3 pairs in test" in output

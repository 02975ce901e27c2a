"""The windows of crops: those of a pair show the same place, and those of equal sizes have never changed."""

import random
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from gantoolkit.data import CacheMode, TrainingBatches, open_dataset
from gantoolkit.data.augmentation import MAX_PAIR_DIFFERENCE, Window, draw_windows
from gantoolkit.recipes.settings import DataSettings

CROP = 16
CACHES: list[CacheMode] = ["none", "file", "device"]


def make_map(width: int, height: int) -> Image.Image:
    """An image whose pixels hold their own coordinates: x in red, y in green."""
    y, x = np.indices((height, width), dtype=np.uint8)
    return Image.fromarray(np.stack([x, y, np.zeros_like(x)], axis=2))


def make_maps(root: Path, sizes_A: list[tuple[int, int]], sizes_B: list[tuple[int, int]]) -> Path:
    for domain, sizes in (("A", sizes_A), ("B", sizes_B)):
        (root / f"train{domain}").mkdir(parents=True)
        for number, size in enumerate(sizes):
            make_map(*size).save(root / f"train{domain}" / f"{number}.png")
    return root


def make_batches(root: Path, pairing: str, cache: CacheMode = "none", **settings) -> TrainingBatches:
    dataset = open_dataset(root, pairing=pairing)
    data = DataSettings(**{"resize": "none", "crop_size": CROP, **settings})
    return TrainingBatches(dataset, data, batch_size=1, seed=3, cache=cache)


def find_window(image: torch.Tensor) -> tuple[int, int, bool]:
    """The left and top edge of a crop (3, CROP, CROP) of `make_map`, and whether it is flipped."""
    x, y = ((image[:2] + 1) * 127.5).round().int()
    return int(x.min()), int(y.min()), bool(x[0, 0] > x[0, -1])


def windows_of(batches: TrainingBatches, count: int) -> list[list[tuple[int, int, bool]]]:
    return [[find_window(batch.images[domain][0]) for domain in "AB"] for batch in batches.iterate(0, count)]


UNPAIRED = [
    [(1, 9, False), (6, 5, True)],
    [(3, 18, True), (7, 14, False)],
    [(3, 15, True), (1, 16, True)],
    [(17, 17, True), (4, 0, False)],
    [(7, 3, False), (16, 3, False)],
    [(10, 8, True), (14, 7, False)],
]
PAIRED = [
    (0, 15, True),
    (18, 14, True),
    (16, 10, False),
    (12, 5, False),
    (19, 20, False),
    (16, 10, False),
]
EXPECTED = {"unpaired": UNPAIRED, "sequential": UNPAIRED, "paired": [[window, window] for window in PAIRED]}


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("pairing", EXPECTED)
def test_windows_of_equal_sizes_have_never_changed(pairing: str, cache: CacheMode, tmp_path: Path) -> None:
    root = make_maps(tmp_path, [(40, 36)] * 3, [(40, 36)] * 3)
    assert windows_of(make_batches(root, pairing, cache), 6) == EXPECTED[pairing]


class TestPairs:
    @given(
        width=st.integers(CROP, 300),
        height=st.integers(CROP, 300),
        more=st.tuples(st.integers(-20, 20), st.integers(-20, 20)),
        seed=st.integers(0, 2**16),
    )
    def test_windows_of_a_pair_are_the_same_shares_of_the_free_ranges(self, width, height, more, seed) -> None:
        sizes = [(width, height), (width + more[0], height + more[1])]
        assume(min(sizes[1]) >= CROP)
        settings = DataSettings(crop_size=CROP)
        first, second = draw_windows(sizes, settings, random.Random(seed))
        (alone,) = draw_windows(sizes[:1], settings, random.Random(seed))
        assert first == alone
        assert first.flipped == second.flipped
        for offset, other, side, other_side in zip(
            (first.left, first.top), (second.left, second.top), *sizes, strict=True
        ):
            free, other_free = side - CROP, other_side - CROP
            assert 0 <= other <= other_free
            share = offset / free if free else 0.5
            assert abs(other - share * other_free) <= 0.5

    def test_an_image_without_free_range_has_the_center_of_its_partner(self) -> None:
        windows = draw_windows([(CROP, CROP), (CROP + 6, CROP)], DataSettings(crop_size=CROP), random.Random(5))
        assert [(window.left, window.top) for window in windows] == [(0, 0), (3, 0)]
        assert isinstance(windows[0], Window)

    @pytest.mark.parametrize("cache", CACHES)
    def test_sizes_that_differ_by_rounding_give_the_same_place(self, cache: CacheMode, tmp_path: Path) -> None:
        root = make_maps(tmp_path, [(200, 100)] * 4, [(203, 101)] * 4)
        for (left, top, flipped), (other_left, other_top, other_flipped) in windows_of(
            make_batches(root, "paired", cache), 12
        ):
            assert flipped == other_flipped
            assert abs(other_left - left * (203 - CROP) / (200 - CROP)) <= 0.5
            assert abs(other_top - top * (101 - CROP) / (100 - CROP)) <= 0.5

    @pytest.mark.parametrize("cache", CACHES)
    @pytest.mark.parametrize(
        ("resize", "text"), [("shorter_side", "20×20 .* is 40×20"), ("none", "50×50 .* is 100×50")]
    )
    def test_a_pair_of_other_sizes_is_named_and_skipped(
        self, resize: str, text: str, cache: CacheMode, tmp_path: Path
    ) -> None:
        root = make_maps(tmp_path, [(50, 50)] * 3, [(50, 50), (100, 50), (50, 50)])
        batches = list(make_batches(root, "paired", cache, resize=resize, load_size=20).iterate(0, 6))
        bad_files = {path: reason for batch in batches for path, reason in batch.bad_files.items()}
        assert list(bad_files) == [str(root / "trainA" / "1.png")]
        (reason,) = bad_files.values()
        assert re.search(text, reason)
        assert str(root / "trainB" / "1.png") in reason
        assert f'data.resize = "{resize}"' in reason
        assert 'set data.resize = "square", or make pairs of equal sizes with `gantoolkit data pair --resize`' in reason

    def test_square_accepts_every_pair(self, tmp_path: Path) -> None:
        root = make_maps(tmp_path, [(50, 50)], [(100, 50)])
        batches = make_batches(root, "paired", resize="square", load_size=20)
        assert all(not batch.bad_files for batch in batches.iterate(0, 4))

    @pytest.mark.parametrize(("width", "is_bad"), [(98, False), (97, True), (102, False), (103, True)])
    def test_two_percent_of_the_larger_side_are_allowed(self, width: int, is_bad: bool, tmp_path: Path) -> None:
        assert MAX_PAIR_DIFFERENCE == 0.02
        root = make_maps(tmp_path, [(100, 50), (100, 50)], [(100, 50), (width, 50)])
        batches = make_batches(root, "paired").iterate(0, 4)
        assert any(batch.bad_files for batch in batches) == is_bad

    def test_unpaired_images_may_have_any_sizes(self, tmp_path: Path) -> None:
        root = make_maps(tmp_path, [(50, 50)] * 2, [(100, 50), (30, 90)])
        for pairing in ("unpaired", "sequential"):
            assert all(not batch.bad_files for batch in make_batches(root, pairing).iterate(0, 4))

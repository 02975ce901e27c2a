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
from gantoolkit.data.augmentation import MAX_PAIR_DIFFERENCE, Window, draw_windows, sizes_match
from gantoolkit.data.evaluation_images import EvaluationImages
from gantoolkit.data.reader import ImageReader
from gantoolkit.errors import DataError
from gantoolkit.recipes.settings import DataSettings
from gantoolkit.training.samples import read_samples

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


class TestEvaluation:
    """Test images and samples are center crops, for which the same rule holds."""

    @pytest.mark.parametrize("resize", ["shorter_side", "none"])
    def test_a_pair_of_other_sizes_is_named_and_skipped(self, resize: str, tmp_path: Path) -> None:
        root = make_maps(tmp_path, [(50, 50)] * 3, [(50, 50), (100, 50), (50, 50)])
        settings = DataSettings(resize=resize, load_size=20, crop_size=CROP)
        images = EvaluationImages.open(root, settings, split="train").readable()
        assert [[file.name for file in images.files(domain)] for domain in "AB"] == [["0.png", "2.png"]] * 2
        (reason,) = images.skipped
        assert reason.startswith(f"{root / 'trainA' / '1.png'} is ")
        assert f"its partner {root / 'trainB' / '1.png'} is " in reason
        assert "gantoolkit data pair --resize" in reason

    def test_a_sample_is_replaced_by_the_next_pair(self, tmp_path: Path) -> None:
        root = make_maps(tmp_path, [(50, 50)] * 2, [(100, 50), (50, 50)])
        settings = DataSettings(resize="none", crop_size=CROP)
        samples = read_samples(open_dataset(root, pairing="paired"), settings, 1)
        assert torch.equal(samples["A"], samples["B"])

    def test_samples_without_a_pair_of_equal_sizes_name_both_images(self, tmp_path: Path) -> None:
        root = make_maps(tmp_path, [(50, 50)], [(100, 50)])
        with pytest.raises(DataError, match=r"trainA/0\.png is 50×50 .* partner .*trainB/0\.png is 100×50"):
            read_samples(open_dataset(root, pairing="paired"), DataSettings(resize="none", crop_size=CROP), 1)

    def test_one_pixel_is_rounding_at_any_size(self) -> None:
        assert sizes_match((20, 16), (21, 16))
        assert not sizes_match((20, 16), (22, 16))


class TestLabelMaps:
    """`data.resample_A = "nearest"` keeps the colors of label maps, in every cache and wherever images are prepared."""

    COLORS = ((0, 0, 0), (250, 20, 90), (30, 200, 140))

    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        generator = np.random.default_rng(1)
        for domain in "AB":
            (tmp_path / f"train{domain}").mkdir()
            for number in range(3):
                labels = generator.integers(0, 3, (9, 11))
                pixels = np.array(self.COLORS, np.uint8)[labels].repeat(5, axis=0).repeat(5, axis=1)
                Image.fromarray(pixels).save(tmp_path / f"train{domain}" / f"{number}.png")
        return tmp_path

    def colors(self, images: torch.Tensor) -> set[tuple[int, ...]]:
        pixels = ((images.movedim(1, 3) + 1) * 127.5).round().int().reshape(-1, 3)
        return set(map(tuple, pixels.tolist()))

    @pytest.mark.parametrize("resize", ["square", "shorter_side"])
    @pytest.mark.parametrize("cache", [*CACHES, "file"])
    def test_crops_hold_the_colors_of_their_files(self, cache: CacheMode, resize: str, root: Path) -> None:
        list(
            make_batches(root, "paired", "file", resize=resize, load_size=32).iterate(0, 3)
        )  # bicubic, also in the cache
        settings = {"resample_A": "nearest", "resize": resize, "load_size": 32}
        for batch in make_batches(root, "paired", cache, **settings).iterate(0, 6):
            assert self.colors(batch.images["A"]) <= set(self.COLORS)
            assert len(self.colors(batch.images["B"])) > 3

    def test_samples_and_test_images_hold_the_colors_of_their_files(self, root: Path) -> None:
        settings = DataSettings(resample_A="nearest", load_size=32, crop_size=CROP)
        samples = read_samples(open_dataset(root), settings, 3)
        images = EvaluationImages.open(root, settings, split="train")
        assert self.colors(samples["A"]) <= set(self.COLORS)
        assert self.colors(images.read("A", [0, 1, 2])) <= set(self.COLORS)
        assert len(self.colors(samples["B"])) > 3

    @pytest.mark.parametrize(
        "changes", [{"resample_A": "nearest"}, {"clip_A": True}, {"nodata_A": -1.0}, {"range_A": (0.0, 254.0)}]
    )
    def test_the_cache_depends_on_how_values_are_read(self, changes: dict, root: Path) -> None:
        settings = DataSettings(range_A=(0.0, 255.0))
        digests = {
            ImageReader(open_dataset(root), data).digest() for data in (settings, settings.model_copy(update=changes))
        }
        assert len(digests) == 2

"""Whatever keeps decoded images, a step sees the same bits."""

import os
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import numpy as np
import pytest
import torch
from _helpers.small import make_image
from _helpers.states import assert_same_state
from hypothesis import given
from hypothesis import strategies as st

import gantoolkit
from gantoolkit.cli.app import app
from gantoolkit.data import CacheMode, TrainingBatches, open_dataset, reader, resident
from gantoolkit.data.cache import PixelFile, find_cache_folder
from gantoolkit.recipes import Recipe
from gantoolkit.recipes.settings import DataSettings

Shown = list[tuple[dict[str, torch.Tensor], dict[str, str]]]


def batches_of(root: Path, mode: CacheMode = "file", **options) -> TrainingBatches:
    dataset = open_dataset(root, pairing=options.pop("pairing", "unpaired"))
    settings = DataSettings(**{"load_size": 20, "crop_size": 16, **options.pop("settings", {})})
    return TrainingBatches(dataset, settings, **{"batch_size": 2, "seed": 3, "cache": mode, **options})


def show(root: Path, mode: CacheMode = "file", **options) -> Shown:
    return show_batches(batches_of(root, mode, **options))


def show_batches(batches: TrainingBatches) -> Shown:
    """Two epochs."""
    return [(batch.images, batch.bad_files) for batch in batches.iterate(0, 2 * batches.steps_per_epoch)]


def assert_same(some: Shown, others: Shown) -> None:
    assert len(some) == len(others)
    for (images, bad), (other_images, other_bad) in zip(some, others, strict=True):
        assert bad == other_bad
        assert list(images) == list(other_images)
        for domain, batch in images.items():
            assert torch.equal(batch, other_images[domain])
            assert batch.stride() == other_images[domain].stride()


def the_file() -> Path:
    (path,) = find_cache_folder().iterdir()
    return path


@pytest.fixture
def no_decoding(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(reader, "read_pixels", lambda *_: pytest.fail("was decoded"))
        patch.setattr(reader, "read_pixel_size", lambda *_: pytest.fail("had its header read"))
        yield


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of many sizes, some too small, one turned, one gray, one broken: unpaired, paired, and side by side."""
    root = tmp_path_factory.mktemp("sets")
    for name in ("folders", "halves"):
        for domain in "AB" if name == "folders" else [""]:
            folder = root / name / f"train{domain}"
            folder.mkdir(parents=True)
            for number in range(5):
                make_image(number, (2 * (15 + 4 * number), 44 - 5 * number)).save(folder / f"{number}.png")
            turned = make_image(7, (40, 22))
            exif = turned.getexif()
            exif[0x0112] = 6
            turned.save(folder / "turned.jpg", exif=exif)
            make_image(8, (34, 30)).convert("L").save(folder / "gray.png")
            (folder / "broken.png").write_text("broken")
    make_image(9).save(root / "folders" / "trainB" / "3.png")  # pairs of different sizes
    return root


@given(
    layout=st.sampled_from(
        [("folders", "unpaired"), ("folders", "paired"), ("folders", "sequential"), ("halves", "paired")]
    ),
    resize=st.sampled_from(["square", "shorter_side", "none"]),
    channels=st.sampled_from([1, 3]),
    flip=st.booleans(),
    batch_size=st.integers(1, 3),
    seed=st.integers(0, 2**16),
)
def test_every_cache_gives_the_bits_of_none(sets, layout, resize, channels, flip, batch_size, seed) -> None:
    shutil.rmtree(find_cache_folder(), ignore_errors=True)
    name, pairing = layout
    settings = {"resize": resize, "channels_A": channels, "flip": flip}
    options = {"pairing": pairing, "batch_size": batch_size, "seed": seed}
    plain = show(sets / name, "none", settings=settings, **options)
    for mode in ("file", "file", "device", "auto"):
        assert_same(plain, show(sets / name, mode, settings=settings, **options))


class TestFile:
    def test_the_next_run_decodes_nothing(self, dataset: Path, request: pytest.FixtureRequest) -> None:
        for resize in ("square", "shorter_side", "none"):
            show(dataset, settings={"resize": resize})
        request.getfixturevalue("no_decoding")
        for resize in ("square", "shorter_side", "none"):
            show(dataset, settings={"resize": resize})

    def test_other_crops_of_the_same_images_share_it(self, dataset: Path, request: pytest.FixtureRequest) -> None:
        show(dataset, pairing="sequential")  # shows every image
        request.getfixturevalue("no_decoding")
        show(dataset, settings={"crop_size": 9, "flip": False}, seed=8, batch_size=1)

    def test_workers_fill_it_together(self, dataset: Path, request: pytest.FixtureRequest) -> None:
        plain = show(dataset, "none")
        assert_same(plain, show(dataset, workers=2))
        assert_same(plain, show(dataset, workers=1))
        request.getfixturevalue("no_decoding")
        assert_same(plain, show(dataset))

    def test_two_runs_fill_it_at_once(self, dataset: Path, request: pytest.FixtureRequest) -> None:
        plain = show(dataset, "none")
        runs = [batches_of(dataset), batches_of(dataset)]
        for first, second in zip(*(batches.iterate(0, 6) for batches in runs), strict=True):
            assert torch.equal(first.images["A"], second.images["A"])
        request.getfixturevalue("no_decoding")
        assert_same(plain, show(dataset))

    @pytest.mark.parametrize(
        "damage", ["empty", "cut off", "longer", "head", "starts", "garbage", "another's", "zeros"]
    )
    def test_one_that_is_not_whole_is_made_anew(
        self, damage: str, dataset: Path, request: pytest.FixtureRequest
    ) -> None:
        plain = show(dataset)
        path = the_file()
        content = bytearray(path.read_bytes())
        if damage == "head":
            content[30] ^= 4
        elif damage == "starts":
            content[70] ^= 4
        elif damage == "another's":
            show(dataset, settings={"load_size": 21})
            content = bytearray(next(other for other in path.parent.iterdir() if other != path).read_bytes())
        damaged = {"empty": b"", "cut off": content[:-1], "longer": content + b"\0", "garbage": b"\x17" * 9999}
        path.write_bytes({**damaged, "zeros": bytes(len(content))}.get(damage, content))
        assert_same(plain, show(dataset))
        request.getfixturevalue("no_decoding")
        assert_same(plain, show(dataset))

    @given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
    def test_no_flipped_bit_reaches_a_step(self, sets, place, bit) -> None:
        plain = show(sets / "folders")
        path = the_file()
        content = bytearray(path.read_bytes())
        content[int(place * len(content))] ^= 1 << bit
        path.write_bytes(content)
        assert_same(plain, show(sets / "folders"))

    def test_a_file_that_changes_has_new_pixels(self, dataset: Path) -> None:
        path = dataset / "trainA" / "00.png"
        make_image(98).save(path, "BMP")  # whose files are of one size
        before = show(dataset)
        age = path.stat().st_mtime_ns
        make_image(99).save(path, "BMP")
        os.utime(path, ns=(age + 1, age + 1))
        after = show(dataset)
        assert_same(after, show(dataset, "none"))
        assert any(not torch.equal(one[0]["A"], other[0]["A"]) for one, other in zip(before, after, strict=True))

    def test_images_larger_than_their_header_says_are_not_kept(
        self, dataset: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(reader, "read_pixel_size", lambda *_: (30, 30))
        assert_same(show(dataset, "none", settings={"resize": "none"}), show(dataset, settings={"resize": "none"}))

    def test_what_is_kept_cannot_be_changed_by_accident(self, tmp_path: Path) -> None:
        kept = PixelFile(tmp_path, b"k" * 32, 2, lambda: [12, 12])
        assert kept.recall(1, 3, np.dtype(np.uint8)) is None
        pixels = torch.arange(12, dtype=torch.uint8).reshape(1, 4, 3).numpy()
        kept.keep(1, pixels)
        recalled = kept.recall(1, 3, np.dtype(np.uint8))
        assert recalled is not None
        assert recalled.tolist() == pixels.tolist()
        assert kept.recall(0, 3, np.dtype(np.uint8)) is None
        with pytest.raises(ValueError, match="read-only"):
            recalled[0] = 0


class TestDisk:
    def test_a_folder_that_cannot_be_written_is_done_without(
        self, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        plain = show(dataset, "none")
        (tmp_path / "occupied").touch()
        monkeypatch.setenv("GANTOOLKIT_CACHE", str(tmp_path / "occupied"))
        with pytest.warns(UserWarning, match=r"occupied.*; images are decoded each time") as warned:
            assert_same(plain, show(dataset))
        assert len(warned) == 1

    def test_a_disk_without_room_for_the_file_is_done_without(self, dataset: Path) -> None:
        plain = show(dataset, "none")
        with files_of_at_most(2000), pytest.warns(UserWarning, match="File too large.*decoded each time") as warned:
            assert_same(plain, show(dataset))
        assert len(warned) == 1
        assert list(find_cache_folder().iterdir()) == []

    def test_a_disk_that_fills_up_keeps_what_is_there(self, dataset: Path) -> None:
        plain = show(dataset, "none")
        batches = batches_of(dataset)
        half = the_file().stat().st_size // 2
        with files_of_at_most(half), pytest.warns(UserWarning, match="cannot be written.*decoded each time") as warned:
            assert_same(plain, show_batches(batches))
        assert len(warned) == 1
        content = the_file().read_bytes()
        assert content[half:].count(0) == len(content) - half
        with pytest.warns(UserWarning, match="cannot be written"):  # nor is it tried again
            assert_same(plain, show_batches(batches))
        assert the_file().read_bytes() == content
        assert_same(plain, show(dataset))

    def test_workers_complain_with_one_voice(self, dataset: Path) -> None:
        plain = show(dataset, "none")
        batches = batches_of(dataset, workers=2)
        the_file().unlink()
        with pytest.warns(UserWarning, match="is gone or damaged; images are decoded each time") as warned:
            assert_same(plain, show_batches(batches))
        assert len(warned) == 1

    def test_no_more_than_its_share_is_taken(self, dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        plain = show(dataset, "none")
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=9000))
        with pytest.warns(
            UserWarning, match=r"would take 0 MB.*set GANTOOLKIT_CACHE to a folder on a larger one; images"
        ):
            assert_same(plain, show(dataset))
        assert list(find_cache_folder().iterdir()) == []

    def test_those_unused_for_longest_make_room(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100_000))

        def make(name: str) -> PixelFile:
            return PixelFile(tmp_path, name.encode() * 32, 1, lambda: [20_000])

        old, used = make("o"), make("u")
        for age, kept in ((2, old), (3, used)):
            os.utime(kept.path, (age, age))
        make("o")  # is used again
        new = make("n")
        assert {path.name for path in tmp_path.iterdir()} == {old.path.name, new.path.name}

    def test_it_lies_where_the_environment_says(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        assert find_cache_folder() == Path(os.environ["GANTOOLKIT_CACHE"])
        monkeypatch.delenv("GANTOOLKIT_CACHE")
        assert find_cache_folder().parts[-2:] == ("gantoolkit", "images")


class TestDevice:
    def test_files_are_read_once_and_nothing_is_written(self, dataset: Path, request: pytest.FixtureRequest) -> None:
        batches = batches_of(dataset, "device", workers=2)
        request.getfixturevalue("no_decoding")
        show_batches(batches)
        assert list(find_cache_folder().iterdir()) == []

    def test_where_they_do_not_fit_they_are_kept_in_a_file(
        self, dataset: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(resident, "_free_memory", lambda device: 4 * 9 * 20 * 20 * 3 - 1)
        plain = show(dataset, "none")
        with pytest.warns(UserWarning, match="cpu: the decoded images would take 0 MB.*; they are kept in a file"):
            assert_same(plain, show(dataset, "device"))
        assert the_file().exists()
        monkeypatch.setattr(resident, "_free_memory", lambda device: 4 * 9 * 20 * 20 * 3)
        assert_same(plain, show(dataset, "device"))

    def test_one_that_is_larger_than_its_header_says_is_too_much(
        self, dataset: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        plain = show(dataset, "none", settings={"resize": "none"})
        monkeypatch.setattr(reader, "read_pixel_size", lambda *_: (30, 30))
        with pytest.warns(UserWarning, match=r"is 40×36, larger than its header says; they are kept in a file"):
            assert_same(plain, show(dataset, "device", settings={"resize": "none"}))

    @pytest.mark.cuda
    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
    @pytest.mark.parametrize("mode", ["auto", "device", "file", "none"])
    def test_cuda_gives_the_bits_of_the_cpu(self, mode: CacheMode, sets: Path) -> None:
        for resize in ("square", "shorter_side", "none"):
            batches = batches_of(sets / "folders", mode, device="cuda", settings={"resize": resize})
            there = show_batches(batches)
            kind = "cuda" if mode in ("auto", "device") else "cpu"
            assert all(images.device.type == kind for batch, _ in there for images in batch.values())
            here = [({domain: images.cpu() for domain, images in batch.items()}, bad) for batch, bad in there]
            assert_same(show(sets / "folders", "none", settings={"resize": resize}), here)


class TestRuns:
    def test_a_stopped_run_continues_bit_for_bit_with_any(self, tiny: Recipe, dataset: Path, tmp_path: Path) -> None:
        (dataset / "trainA" / "03.png").write_text("broken")
        whole = gantoolkit.train(tiny, dataset, tmp_path / "whole", device="cpu", cache="none")
        for stop, mode in ((3, "file"), (6, "device"), (None, "file")):
            parts = gantoolkit.train(tiny, dataset, tmp_path / "parts", device="cpu", cache=mode, stop_at=stop)
        assert_same_state(whole, parts)

    def test_the_command_line_has_the_choice(self, command, dataset: Path, tmp_path: Path) -> None:
        small = ["generator.width=4", "generator.blocks=1", "discriminator.layers=1", "data.crop_size=16"]
        settings = [word for setting in small for word in ("--set", setting)]

        def train(out: str, *choice: str) -> tuple[int, str, str]:
            run = ["--data", dataset, "--out", tmp_path / out, "--device", "cpu", "--stop-at", 1]
            return command("train", "cyclegan", *run, *settings, *choice)

        assert train("without", "--cache", "none")[0] == 0
        assert list(find_cache_folder().iterdir()) == []
        assert train("with")[0] == 0
        assert the_file().exists()
        code, _, complaint = train("wrong", "--cache", "memory")
        assert code == 2
        assert "--cache" in complaint

    def test_the_command_line_knows_every_mode(self) -> None:
        help_page = app.generate_docs()
        assert all(f"`{mode}`" in help_page for mode in get_args(CacheMode))


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

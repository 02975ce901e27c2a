"""Batches are the same bit for bit with every cache."""

import os
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import numpy as np
import platformdirs
import pytest
import torch
from _helpers.small import make_image
from _helpers.states import assert_same_state
from hypothesis import given
from hypothesis import strategies as st

import gantoolkit
from gantoolkit.cli.app import app
from gantoolkit.data import CacheMode, TrainingBatches, device_cache, open_dataset, reader
from gantoolkit.data.cache import PixelFile, find_cache_folder
from gantoolkit.recipes import Recipe
from gantoolkit.recipes.settings import DataSettings

Batches = list[tuple[dict[str, torch.Tensor], dict[str, str]]]


def make_batches(root: Path, mode: CacheMode = "file", **options) -> TrainingBatches:
    dataset = open_dataset(root, pairing=options.pop("pairing", "unpaired"))
    settings = DataSettings(**{"load_size": 20, "crop_size": 16, **options.pop("settings", {})})
    return TrainingBatches(dataset, settings, **{"batch_size": 2, "seed": 3, "cache": mode, **options})


def load(root: Path, mode: CacheMode = "file", **options) -> Batches:
    return load_all(make_batches(root, mode, **options))


def load_all(batches: TrainingBatches) -> Batches:
    """Load two epochs."""
    return [(batch.images, batch.bad_files) for batch in batches.iterate(0, 2 * batches.steps_per_epoch)]


def assert_same(batches: Batches, others: Batches) -> None:
    assert len(batches) == len(others)
    for (images, bad), (other_images, other_bad) in zip(batches, others, strict=True):
        assert bad == other_bad
        assert list(images) == list(other_images)
        for domain, batch in images.items():
            assert torch.equal(batch, other_images[domain])
            assert batch.stride() == other_images[domain].stride()


def cache_file() -> Path:
    (path,) = find_cache_folder().iterdir()
    return path


@pytest.fixture
def no_decoding(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(reader, "read_decoded_image", lambda *_: pytest.fail("an image was decoded"))
        patch.setattr(reader, "read_pixel_size", lambda *_: pytest.fail("a header was read"))
        yield


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of many sizes, some too small, one rotated, one gray, one broken: unpaired, paired, and side by side."""
    root = tmp_path_factory.mktemp("sets")
    for name in ("folders", "halves"):
        for domain in "AB" if name == "folders" else [""]:
            folder = root / name / f"train{domain}"
            folder.mkdir(parents=True)
            for number in range(5):
                make_image(number, (2 * (15 + 4 * number), 44 - 5 * number)).save(folder / f"{number}.png")
            rotated = make_image(7, (40, 22))
            exif = rotated.getexif()
            exif[0x0112] = 6
            rotated.save(folder / "rotated.jpg", exif=exif)
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
def test_every_cache_gives_the_same_batches_as_no_cache(sets, layout, resize, channels, flip, batch_size, seed) -> None:
    shutil.rmtree(find_cache_folder(), ignore_errors=True)
    name, pairing = layout
    settings = {"resize": resize, "channels_A": channels, "flip": flip}
    options = {"pairing": pairing, "batch_size": batch_size, "seed": seed}
    plain = load(sets / name, "none", settings=settings, **options)
    for mode in ("file", "file", "device", "auto"):
        assert_same(plain, load(sets / name, mode, settings=settings, **options))


class TestFile:
    def test_second_run_decodes_nothing(self, dataset: Path, request: pytest.FixtureRequest) -> None:
        for resize in ("square", "shorter_side", "none"):
            load(dataset, settings={"resize": resize})
        request.getfixturevalue("no_decoding")
        for resize in ("square", "shorter_side", "none"):
            load(dataset, settings={"resize": resize})

    def test_file_is_shared_by_other_crops_of_the_same_images(
        self, dataset: Path, request: pytest.FixtureRequest
    ) -> None:
        load(dataset, pairing="sequential")  # shows every image
        request.getfixturevalue("no_decoding")
        load(dataset, settings={"crop_size": 9, "flip": False}, seed=8, batch_size=1)

    def test_workers_fill_the_file_together(self, dataset: Path, request: pytest.FixtureRequest) -> None:
        plain = load(dataset, "none")
        assert_same(plain, load(dataset, workers=2))
        assert_same(plain, load(dataset, workers=1))
        request.getfixturevalue("no_decoding")
        assert_same(plain, load(dataset))

    def test_two_runs_fill_the_file_at_once(self, dataset: Path, request: pytest.FixtureRequest) -> None:
        plain = load(dataset, "none")
        runs = [make_batches(dataset), make_batches(dataset)]
        for first, second in zip(*(batches.iterate(0, 6) for batches in runs), strict=True):
            assert torch.equal(first.images["A"], second.images["A"])
        request.getfixturevalue("no_decoding")
        assert_same(plain, load(dataset))

    @pytest.mark.parametrize(
        "damage", ["empty", "cut off", "longer", "head", "starts", "garbage", "other data", "zeros"]
    )
    def test_damaged_file_is_created_again(self, damage: str, dataset: Path, request: pytest.FixtureRequest) -> None:
        plain = load(dataset)
        path = cache_file()
        content = bytearray(path.read_bytes())
        if damage == "head":
            content[30] ^= 4
        elif damage == "starts":
            content[70] ^= 4
        elif damage == "other data":
            load(dataset, settings={"load_size": 21})
            content = bytearray(next(other for other in path.parent.iterdir() if other != path).read_bytes())
        damaged = {"empty": b"", "cut off": content[:-1], "longer": content + b"\0", "garbage": b"\x17" * 9999}
        path.write_bytes({**damaged, "zeros": bytes(len(content))}.get(damage, content))
        assert_same(plain, load(dataset))
        request.getfixturevalue("no_decoding")
        assert_same(plain, load(dataset))

    @given(position=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
    def test_flipped_bit_does_not_change_batches(self, sets, position, bit) -> None:
        plain = load(sets / "folders")
        path = cache_file()
        content = bytearray(path.read_bytes())
        content[int(position * len(content))] ^= 1 << bit
        path.write_bytes(content)
        assert_same(plain, load(sets / "folders"))

    def test_changed_image_file_is_decoded_again(self, dataset: Path) -> None:
        path = dataset / "trainA" / "00.png"
        make_image(98).save(path, "BMP")  # BMP files of equal images have the same size
        before = load(dataset)
        modified = path.stat().st_mtime_ns
        make_image(99).save(path, "BMP")
        os.utime(path, ns=(modified + 1, modified + 1))
        after = load(dataset)
        assert_same(after, load(dataset, "none"))
        assert any(not torch.equal(one[0]["A"], other[0]["A"]) for one, other in zip(before, after, strict=True))

    def test_image_larger_than_its_header_says_is_not_cached(
        self, dataset: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(reader, "read_pixel_size", lambda *_: (30, 30))
        assert_same(load(dataset, "none", settings={"resize": "none"}), load(dataset, settings={"resize": "none"}))

    def test_cached_pixels_are_read_only(self, tmp_path: Path) -> None:
        cache = PixelFile(tmp_path, b"k" * 32, 2, lambda: [12, 12])
        assert cache.read(1, 3, np.dtype(np.uint8)) is None
        pixels = torch.arange(12, dtype=torch.uint8).reshape(1, 4, 3).numpy()
        cache.write(1, pixels)
        entry = cache.read(1, 3, np.dtype(np.uint8))
        assert entry is not None
        cached, text = entry
        assert cached.tolist() == pixels.tolist()
        assert text == b""
        assert cache.read(0, 3, np.dtype(np.uint8)) is None
        with pytest.raises(ValueError, match="read-only"):
            cached[0] = 0


class TestDisk:
    def test_unwritable_folder_disables_the_cache(
        self, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        plain = load(dataset, "none")
        (tmp_path / "occupied").touch()
        monkeypatch.setenv("GANTOOLKIT_CACHE", str(tmp_path / "occupied"))
        with pytest.warns(
            UserWarning, match=r"occupied.*set GANTOOLKIT_CACHE.*; images are decoded each time"
        ) as warnings:
            assert_same(plain, load(dataset))
        assert len(warnings) == 1

    @pytest.mark.parametrize("error", [RuntimeError("could not determine the home directory"), None])
    def test_user_without_a_home_folder_has_no_cache(
        self, error: Exception | None, dataset: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def find_folder(name: str) -> Path:
            if error:
                raise error
            return Path("~", ".cache", name)  # what older versions of platformdirs return

        plain = load(dataset, "none")
        monkeypatch.delenv("GANTOOLKIT_CACHE")
        monkeypatch.setattr(platformdirs, "user_cache_path", find_folder)
        with pytest.warns(
            UserWarning, match=r"no home folder.*set GANTOOLKIT_CACHE to .*; images are decoded"
        ) as caught:
            assert_same(plain, load(dataset))
        assert len(caught) == 1
        assert not Path("~").exists()

    def test_full_disk_disables_the_cache(self, dataset: Path) -> None:
        plain = load(dataset, "none")
        with file_size_limit(2000), pytest.warns(UserWarning, match="File too large.*decoded each time") as warnings:
            assert_same(plain, load(dataset))
        assert len(warnings) == 1
        assert list(find_cache_folder().iterdir()) == []

    def test_disk_that_fills_up_keeps_the_cached_images(self, dataset: Path) -> None:
        plain = load(dataset, "none")
        batches = make_batches(dataset)
        half = cache_file().stat().st_size // 2
        with file_size_limit(half), pytest.warns(UserWarning, match="cannot be written.*decoded each time") as warnings:
            assert_same(plain, load_all(batches))
        assert len(warnings) == 1
        content = cache_file().read_bytes()
        assert content[half:].count(0) == len(content) - half
        with pytest.warns(UserWarning, match="cannot be written"):  # the cache is not tried again
            assert_same(plain, load_all(batches))
        assert cache_file().read_bytes() == content
        assert_same(plain, load(dataset))

    def test_workers_warn_once(self, dataset: Path) -> None:
        plain = load(dataset, "none")
        batches = make_batches(dataset, workers=2)
        cache_file().unlink()
        with pytest.warns(UserWarning, match="is missing or damaged; images are decoded each time") as warnings:
            assert_same(plain, load_all(batches))
        assert len(warnings) == 1

    def test_cache_takes_at_most_its_share_of_the_disk(self, dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        plain = load(dataset, "none")
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=9000))
        with pytest.warns(
            UserWarning, match=r"would take 0 MB.*set GANTOOLKIT_CACHE to a folder on a larger disk; images"
        ):
            assert_same(plain, load(dataset))
        assert list(find_cache_folder().iterdir()) == []

    def test_least_recently_used_files_are_removed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100_000))

        def make(name: str) -> PixelFile:
            return PixelFile(tmp_path, name.encode() * 32, 1, lambda: [20_000])

        first, second = make("f"), make("s")
        for modified, cache in ((2, first), (3, second)):
            os.utime(cache.path, (modified, modified))
        make("f")  # uses the first file again
        third = make("t")
        assert {path.name for path in tmp_path.iterdir()} == {first.path.name, third.path.name}

    def test_environment_variable_sets_the_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        assert find_cache_folder() == Path(os.environ["GANTOOLKIT_CACHE"])
        monkeypatch.delenv("GANTOOLKIT_CACHE")
        assert find_cache_folder().parts[-2:] == ("gantoolkit", "images")


class TestDevice:
    def test_files_are_read_once_and_nothing_is_written(self, dataset: Path, request: pytest.FixtureRequest) -> None:
        batches = make_batches(dataset, "device", workers=2)
        request.getfixturevalue("no_decoding")
        load_all(batches)
        assert list(find_cache_folder().iterdir()) == []

    def test_images_that_do_not_fit_are_cached_in_a_file(self, dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(device_cache, "available_memory", lambda device: 4 * 9 * 20 * 20 * 3 - 1)
        plain = load(dataset, "none")
        with pytest.warns(
            UserWarning, match="cpu: the decoded images would take 0 MB.*; they are cached in a file instead"
        ):
            assert_same(plain, load(dataset, "device"))
        assert cache_file().exists()
        monkeypatch.setattr(device_cache, "available_memory", lambda device: 4 * 9 * 20 * 20 * 3)
        assert_same(plain, load(dataset, "device"))

    def test_image_larger_than_its_header_says_falls_back_to_a_file(
        self, dataset: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        plain = load(dataset, "none", settings={"resize": "none"})
        monkeypatch.setattr(reader, "read_pixel_size", lambda *_: (30, 30))
        with pytest.warns(
            UserWarning, match=r"is 40×36, larger than its header says; they are cached in a file instead"
        ):
            assert_same(plain, load(dataset, "device", settings={"resize": "none"}))

    @pytest.mark.cuda
    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
    @pytest.mark.parametrize("mode", ["auto", "device", "file", "none"])
    def test_cuda_gives_the_same_batches_as_cpu(self, mode: CacheMode, sets: Path) -> None:
        for resize in ("square", "shorter_side", "none"):
            batches = make_batches(sets / "folders", mode, device="cuda", settings={"resize": resize})
            loaded = load_all(batches)
            device = "cuda" if mode in ("auto", "device") else "cpu"
            assert all(images.device.type == device for batch, _ in loaded for images in batch.values())
            on_cpu = [({domain: images.cpu() for domain, images in batch.items()}, bad) for batch, bad in loaded]
            assert_same(load(sets / "folders", "none", settings={"resize": resize}), on_cpu)


class TestRuns:
    def test_stopped_run_resumes_exactly_with_any_cache(self, tiny: Recipe, dataset: Path, tmp_path: Path) -> None:
        (dataset / "trainA" / "03.png").write_text("broken")
        uninterrupted = gantoolkit.train(tiny, dataset, tmp_path / "whole", device="cpu", cache="none")
        for stop, mode in ((3, "file"), (6, "device"), (None, "file")):
            resumed = gantoolkit.train(tiny, dataset, tmp_path / "parts", device="cpu", cache=mode, stop_at=stop)
        assert_same_state(uninterrupted, resumed)

    def test_command_line_sets_the_cache_mode(self, command, dataset: Path, tmp_path: Path) -> None:
        overrides = ["generator.width=4", "generator.blocks=1", "discriminator.layers=1", "data.crop_size=16"]
        settings = [word for setting in overrides for word in ("--set", setting)]

        def train(out: str, *options: str) -> tuple[int, str, str]:
            run = ["--data", dataset, "--out", tmp_path / out, "--device", "cpu", "--stop-at", 1]
            return command("train", "cyclegan", *run, *settings, *options)

        assert train("without", "--cache", "none")[0] == 0
        assert list(find_cache_folder().iterdir()) == []
        assert train("with")[0] == 0
        assert cache_file().exists()
        code, _, error = train("wrong", "--cache", "memory")
        assert code == 2
        assert "--cache" in error

    def test_command_line_documents_every_mode(self) -> None:
        help_page = app.generate_docs()
        assert all(f"`{mode}`" in help_page for mode in get_args(CacheMode))


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Let every write beyond `size` bytes of a file fail."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

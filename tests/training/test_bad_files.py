"""Files that go bad while a run trains: named, counted, bounded, and in the report."""

import gc
import os
import random
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from _helpers.small import make_dataset, make_image
from _helpers.states import rows

import gantoolkit
from gantoolkit.data import TrainingBatches, open_dataset, sampling
from gantoolkit.data.reader import ImageReader
from gantoolkit.data.sources import HostSource
from gantoolkit.errors import DataError
from gantoolkit.files.tensors import read_header
from gantoolkit.recipes import Recipe
from gantoolkit.run import Run
from gantoolkit.training import Event, StepDone

STEPS = 20


def replace(path: Path) -> None:
    make_image(77, size=(50, 44)).save(path)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def make_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


HARMS: dict[str, tuple[Callable[[Path], object], str]] = {
    "deleted": (Path.unlink, "no such file"),
    "replaced by another image": (replace, "was replaced during training"),
    "replaced by garbage": (lambda path: path.write_bytes(b"\0" * 500), "is not a readable image"),
    "emptied": (lambda path: path.write_bytes(b""), "is not a readable image"),
    "cut off": (truncate, "is damaged or cannot be read"),
    "replaced by a folder": (make_folder, "is a folder, not an image file"),
    "replaced by a pipe": (make_pipe, "is a pipe or a device, not an image file"),
}


class Harm:
    """A callback that does something after a step, and notes which files were left out, and when."""

    def __init__(self, step: int, act: Callable[[], object]) -> None:
        self.step, self.act = step, act
        self.left_out: list[dict[str, str]] = []

    def __call__(self, event: Event) -> None:
        if isinstance(event, StepDone):
            self.left_out += [event.bad_files] if event.bad_files else []
            if event.step == self.step:
                self.act()


@pytest.fixture
def long(tiny: Recipe) -> Recipe:
    return tiny.swap({"training.epochs": STEPS // 5})


@pytest.mark.parametrize("kind", HARMS)
def test_a_file_that_goes_bad_is_named_counted_and_replaced_by_the_next(
    kind: str, long: Recipe, dataset: Path, tmp_path: Path
) -> None:
    harm, why = HARMS[kind]
    bad = dataset / "trainA" / "03.png"
    noted = Harm(6, lambda: harm(bad))
    run = Run.start(long, dataset, tmp_path / "run")
    assert run.train(device="cpu", cache="none", callbacks=[noted]).reason == "finished"
    assert {name for found in noted.left_out for name in found} == {str(bad)}
    assert all(why in found[str(bad)] for found in noted.left_out)
    page = run.report.read_text()
    assert "<tr><th>Unreadable files</th><td>1</td></tr>" in page
    assert re.search(rf"<li><code>{re.escape(str(bad))}</code> {re.escape(why)}", page)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_one_that_may_not_be_read_any_more_too(long: Recipe, dataset: Path, tmp_path: Path) -> None:
    bad = dataset / "trainA" / "03.png"
    noted = Harm(6, lambda: bad.chmod(0))
    Run.start(long, dataset, tmp_path / "run").train(device="cpu", cache="none", callbacks=[noted])
    assert {name for found in noted.left_out for name in found} == {str(bad)}


def test_what_is_kept_needs_its_file_no_more(long: Recipe, dataset: Path, tmp_path: Path) -> None:
    whole = gantoolkit.train(long, dataset, tmp_path / "whole", device="cpu")
    noted = Harm(6, lambda: shutil.rmtree(dataset / "trainA"))
    run = Run.start(long, dataset, tmp_path / "run")
    assert run.train(device="cpu", cache="file", callbacks=[noted]).reason == "finished"
    assert noted.left_out == []
    assert rows(run) == rows(whole)


def test_what_was_replaced_before_it_was_kept_is_not_kept_in_its_place(
    long: Recipe, dataset: Path, tmp_path: Path
) -> None:
    bad = dataset / "trainA" / "03.png"
    before, about = bad.read_bytes(), bad.stat()
    run = Run.start(long, dataset, tmp_path / "run")
    assert bad not in files_until(run, 1)
    run.train(device="cpu", callbacks=[Harm(1, lambda: replace(bad))], stop_at=10)
    bad.write_bytes(before)
    os.utime(bad, ns=(about.st_atime_ns, about.st_mtime_ns))
    # The same data set again, by its digest: a run that shares the cache learns what one without a cache learns.
    with_cache = gantoolkit.train(long, dataset, tmp_path / "with", device="cpu", cache="file")
    without = gantoolkit.train(long, dataset, tmp_path / "without", device="cpu", cache="none")
    assert rows(with_cache) == rows(without)


def test_with_workers_it_is_the_same(long: Recipe, dataset: Path, tmp_path: Path) -> None:
    bad = dataset / "trainA" / "03.png"
    run = Run.start(long.swap({"training.epochs": 20}), dataset, tmp_path / "run")
    noted = Harm(3, lambda: make_pipe(bad))
    assert run.train(device="cpu", cache="none", workers=1, callbacks=[noted]).reason == "finished"
    assert {name for found in noted.left_out for name in found} == {str(bad)}


def test_a_name_that_is_no_text_is_told_and_survives_a_checkpoint(long: Recipe, dataset: Path, tmp_path: Path) -> None:
    name = b"\xff\xfe.png"
    Path(os.fsdecode(bytes(dataset / "trainA") + b"/" + name)).write_bytes(b"broken")
    run = gantoolkit.train(long, dataset, tmp_path / "run", device="cpu", cache="none", stop_at=10)
    told = read_header(run.folder.list_checkpoints()[-1])["progress"]["bad_files"]
    assert any(path.endswith("trainA/\ufffd\ufffd.png") for path in told)
    assert run.train(device="cpu", cache="none", stop_at=12).step == 12
    assert "\ufffd\ufffd.png" in run.report.read_text()


class TestTooMany:
    def test_the_run_ends_with_what_it_has_learned_and_goes_on_when_they_are_back(
        self, long: Recipe, dataset: Path, tmp_path: Path
    ) -> None:
        recipe = long.swap({"data.max_bad_files": 1})
        whole = gantoolkit.train(recipe, dataset, tmp_path / "whole", device="cpu", cache="none")
        away = tmp_path / "away"
        run = Run.start(recipe, dataset, tmp_path / "run")
        noted = Harm(6, lambda: (dataset / "trainA").rename(away))
        with pytest.raises(
            DataError, match=r"no image can be read; .*no such file; the folder .*trainA no longer exists"
        ):
            run.train(device="cpu", cache="none", callbacks=[noted])
        newest = run.folder.newest_checkpoint(run.recipe)
        assert newest is not None
        assert newest.progress["step"] == 6
        assert newest.progress["bad_files"] == {}
        away.rename(dataset / "trainA")
        assert run.train(device="cpu", cache="none").reason == "finished"
        assert rows(run) == rows(whole)

    def test_the_bound_may_be_raised_for_the_same_run(self, long: Recipe, dataset: Path, tmp_path: Path) -> None:
        recipe = long.swap({"data.max_bad_files": 1})

        def spoil() -> None:
            for number in (1, 2, 3):
                (dataset / "trainA" / f"{number:02d}.png").write_text("no image")

        with pytest.raises(DataError, match=r"2 files cannot be read, more than data\.max_bad_files = 1; the last: "):
            Run.start(recipe, dataset, tmp_path / "run").train(device="cpu", cache="none", callbacks=[Harm(3, spoil)])
        with pytest.warns(UserWarning, match=r"data\.max_bad_files is 5 here and 1 there; nothing of what is learned"):
            run = Run.start(recipe.swap({"data.max_bad_files": 5}), dataset, tmp_path / "run")
        assert run.train(device="cpu", cache="none").reason == "finished"
        assert "<tr><th>Unreadable files</th><td>3</td></tr>" in run.report.read_text()

    def test_the_report_names_twenty_of_them(self, long: Recipe, tmp_path: Path) -> None:
        data = make_dataset(tmp_path / "many", count_A=25, count_B=25)
        for number in range(22):
            (data / "trainA" / f"{number:02d}.png").write_text("no image")
        recipe = long.swap({"data.max_bad_files": 30, "training.epochs": 1})
        page = gantoolkit.train(recipe, data, tmp_path / "run", device="cpu", cache="none").report.read_text()
        assert page.count("is not a readable image") == 20
        assert "<li>and 2 more</li>" in page


class Stalling(HostSource):
    """Reads as from a file system that stands still, as long as a file is there."""

    def __init__(self, reader: ImageReader, flag: Path) -> None:
        super().__init__(reader)
        self.flag = flag

    def load_crop(self, domain: str, index: int, rng: random.Random) -> torch.Tensor:
        while self.flag.exists():
            time.sleep(0.1)
        return super().load_crop(domain, index, rng)


def test_a_file_system_that_stands_still_ends_the_run_after_a_time_with_the_files_it_waits_for(
    long: Recipe, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = gantoolkit.train(long, dataset, tmp_path / "whole", device="cpu")
    run = Run.start(long, dataset, tmp_path / "run")
    flag = tmp_path / "stalled"
    started: list[int] = []

    def stall() -> None:
        started.extend(children())
        flag.touch()
        patch.setattr(sampling, "WORKER_TIMEOUT_SECONDS", 5.0)  # only now: the process took longer than that to come up
        for loading in gc.get_objects():
            if type(loading).__name__ == "_MultiProcessingDataLoaderIter":
                loading._timeout = 5.0

    with monkeypatch.context() as patch:
        patch.setattr(sampling, "open_source", lambda data, settings, *_: Stalling(ImageReader(data, settings), flag))
        with pytest.raises(
            DataError,
            match=r"no images were loaded for 5 s; .* Step \d+ waits for .*trainA/.*png, .*trainB/.*png; resume",
        ):
            run.train(device="cpu", workers=1, callbacks=[Harm(2, stall)])
    assert started
    assert set(children()).isdisjoint(started)
    assert run.train(device="cpu").reason == "finished"
    assert rows(run) == rows(whole)


def children() -> list[int]:
    """ProcessGroup that load images for this one."""
    listed = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [int(child) for child in listed if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


def files_until(run: Run, step: int) -> list[Path]:
    """The files that the first steps need."""
    batches = TrainingBatches(open_dataset(run.data), run.recipe.data, batch_size=1, seed=run.recipe.training.seed)
    return [file for before in range(step) for file in batches.files(before)]

"""Files that become unreadable during training are named, counted, limited and listed in the report."""

import os
import re
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from _helpers.small import make_dataset, make_image
from _helpers.states import rows

import gantoolkit
from gantoolkit.data import TrainingBatches, open_dataset, sampling
from gantoolkit.data import workers as workers_module
from gantoolkit.data.reader import ImageReader, LoadedImage
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


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "deleted": (Path.unlink, "no such file"),
    "replaced by another image": (replace, "was replaced during training"),
    "replaced by garbage": (lambda path: path.write_bytes(b"\0" * 500), "is not a readable image"),
    "emptied": (lambda path: path.write_bytes(b""), "is not a readable image"),
    "truncated": (truncate, "is damaged or cannot be read"),
    "replaced by a folder": (make_folder, "is a folder, not an image file"),
    "replaced by a pipe": (make_pipe, "is a pipe or a device, not an image file"),
}


class Damage:
    """A callback that calls `damage` after a step and records the files that were skipped in each step."""

    def __init__(self, step: int, damage: Callable[[], object]) -> None:
        self.step, self.damage = step, damage
        self.bad_files: list[dict[str, str]] = []

    def __call__(self, event: Event) -> None:
        if isinstance(event, StepDone):
            self.bad_files += [event.bad_files] if event.bad_files else []
            if event.step == self.step:
                self.damage()

    def paths(self) -> set[str]:
        return {path for bad_files in self.bad_files for path in bad_files}


@pytest.fixture
def recipe(tiny: Recipe) -> Recipe:
    return tiny.swap({"training.epochs": STEPS // 5})


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_bad_file_is_named_counted_and_replaced_by_the_next(
    kind: str, recipe: Recipe, dataset: Path, tmp_path: Path
) -> None:
    damage, reason = DAMAGES[kind]
    bad = dataset / "trainA" / "03.png"
    callback = Damage(6, lambda: damage(bad))
    run = Run.start(recipe, dataset, tmp_path / "run")
    assert run.train(device="cpu", cache="none", callbacks=[callback]).reason == "finished"
    assert callback.paths() == {str(bad)}
    assert all(reason in bad_files[str(bad)] for bad_files in callback.bad_files)
    page = run.report.read_text()
    assert "<tr><th>Unreadable files</th><td>1</td></tr>" in page
    assert re.search(rf"<li><code>{re.escape(str(bad))}</code> {re.escape(reason)}", page)


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read every file")
def test_a_file_whose_permissions_change_is_bad(recipe: Recipe, dataset: Path, tmp_path: Path) -> None:
    bad = dataset / "trainA" / "03.png"
    callback = Damage(6, lambda: bad.chmod(0))
    Run.start(recipe, dataset, tmp_path / "run").train(device="cpu", cache="none", callbacks=[callback])
    assert callback.paths() == {str(bad)}


def test_cached_images_do_not_need_their_files(recipe: Recipe, dataset: Path, tmp_path: Path) -> None:
    whole = gantoolkit.train(recipe, dataset, tmp_path / "whole", device="cpu")
    callback = Damage(6, lambda: shutil.rmtree(dataset / "trainA"))
    run = Run.start(recipe, dataset, tmp_path / "run")
    assert run.train(device="cpu", cache="file", callbacks=[callback]).reason == "finished"
    assert callback.bad_files == []
    assert rows(run) == rows(whole)


def test_a_file_that_was_replaced_before_it_was_cached_does_not_enter_the_cache(
    recipe: Recipe, dataset: Path, tmp_path: Path
) -> None:
    bad = dataset / "trainA" / "03.png"
    content, status = bad.read_bytes(), bad.stat()
    run = Run.start(recipe, dataset, tmp_path / "run")
    assert bad not in files_until(run, 1)
    run.train(device="cpu", callbacks=[Damage(1, lambda: replace(bad))], stop_at=10)
    bad.write_bytes(content)
    os.utime(bad, ns=(status.st_atime_ns, status.st_mtime_ns))
    # The data set has its old digest again, so this run uses the same cache.
    with_cache = gantoolkit.train(recipe, dataset, tmp_path / "with", device="cpu", cache="file")
    without = gantoolkit.train(recipe, dataset, tmp_path / "without", device="cpu", cache="none")
    assert rows(with_cache) == rows(without)


@pytest.mark.slow(reason="starts a worker process")
def test_workers_report_bad_files(recipe: Recipe, dataset: Path, tmp_path: Path) -> None:
    bad = dataset / "trainA" / "03.png"
    run = Run.start(recipe.swap({"training.epochs": 20}), dataset, tmp_path / "run")
    callback = Damage(3, lambda: make_pipe(bad))
    assert run.train(device="cpu", cache="none", workers=1, callbacks=[callback]).reason == "finished"
    assert callback.paths() == {str(bad)}


def test_a_file_name_that_is_not_valid_text_is_reported_and_saved(
    recipe: Recipe, dataset: Path, tmp_path: Path
) -> None:
    name = b"\xff\xfe.png"
    Path(os.fsdecode(bytes(dataset / "trainA") + b"/" + name)).write_bytes(b"broken")
    run = gantoolkit.train(recipe, dataset, tmp_path / "run", device="cpu", cache="none", stop_at=10)
    bad_files = read_header(run.folder.list_checkpoints()[-1])["progress"]["bad_files"]
    assert any(path.endswith("trainA/\ufffd\ufffd.png") for path in bad_files)
    assert run.train(device="cpu", cache="none", stop_at=12).step == 12
    assert "\ufffd\ufffd.png" in run.report.read_text()


class TestTooMany:
    def test_the_run_saves_before_it_stops_and_resumes_when_the_files_are_back(
        self, recipe: Recipe, dataset: Path, tmp_path: Path
    ) -> None:
        recipe = recipe.swap({"data.max_bad_files": 1})
        whole = gantoolkit.train(recipe, dataset, tmp_path / "whole", device="cpu", cache="none")
        moved = tmp_path / "moved"
        run = Run.start(recipe, dataset, tmp_path / "run")
        callback = Damage(6, lambda: (dataset / "trainA").rename(moved))
        with pytest.raises(
            DataError, match=r"no image can be read; .*no such file; the folder .*trainA no longer exists"
        ):
            run.train(device="cpu", cache="none", callbacks=[callback])
        newest = run.folder.newest_checkpoint(run.recipe)
        assert newest is not None
        assert newest.progress["step"] == 6
        assert newest.progress["bad_files"] == {}
        moved.rename(dataset / "trainA")
        assert run.train(device="cpu", cache="none").reason == "finished"
        assert rows(run) == rows(whole)

    def test_the_limit_can_be_raised_for_an_existing_run(self, recipe: Recipe, dataset: Path, tmp_path: Path) -> None:
        recipe = recipe.swap({"data.max_bad_files": 1})

        def damage() -> None:
            for number in (1, 2, 3):
                (dataset / "trainA" / f"{number:02d}.png").write_text("not an image")

        with pytest.raises(DataError, match=r"2 files cannot be read, more than data\.max_bad_files = 1; the last: "):
            Run.start(recipe, dataset, tmp_path / "run").train(
                device="cpu", cache="none", callbacks=[Damage(3, damage)]
            )
        with pytest.warns(UserWarning, match=r"data\.max_bad_files is 5 here and 1 there; weights do not depend on it"):
            run = Run.start(recipe.swap({"data.max_bad_files": 5}), dataset, tmp_path / "run")
        assert run.train(device="cpu", cache="none").reason == "finished"
        assert "<tr><th>Unreadable files</th><td>3</td></tr>" in run.report.read_text()

    def test_the_report_names_at_most_twenty(self, recipe: Recipe, tmp_path: Path) -> None:
        data = make_dataset(tmp_path / "many", count_A=25, count_B=25)
        for number in range(22):
            (data / "trainA" / f"{number:02d}.png").write_text("not an image")
        recipe = recipe.swap({"data.max_bad_files": 30, "training.epochs": 1})
        page = gantoolkit.train(recipe, data, tmp_path / "run", device="cpu", cache="none").report.read_text()
        assert page.count("is not a readable image") == 20
        assert "<li>and 2 more</li>" in page


class HangingSource(HostSource):
    """Reads as from a file system that hangs while a file exists."""

    def __init__(self, reader: ImageReader, flag: Path) -> None:
        super().__init__(reader)
        self.flag = flag

    def load(self, domain: str, index: int) -> LoadedImage:
        while self.flag.exists():
            time.sleep(0.1)
        return super().load(domain, index)


@pytest.mark.slow(reason="waits for timeouts, about 20 s")
def test_a_file_system_that_hangs_ends_the_run_and_the_error_names_the_files(
    recipe: Recipe, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = gantoolkit.train(recipe, dataset, tmp_path / "whole", device="cpu")
    run = Run.start(recipe, dataset, tmp_path / "run")
    flag = tmp_path / "hangs"
    workers: list[int] = []

    def hang() -> None:
        workers.extend(worker_processes())
        flag.touch()
        patch.setattr(workers_module, "WORKER_TIMEOUT_SECONDS", 5.0)  # not before: a worker takes longer to start

    with monkeypatch.context() as patch:
        # A worker process cannot import this module under the name that pytest gives it.
        patch.syspath_prepend(Path(__file__).parent)
        patch.setitem(sys.modules, Path(__file__).stem, sys.modules[__name__])
        patch.setattr(HangingSource, "__module__", Path(__file__).stem)
        patch.setattr(
            sampling, "open_source", lambda data, settings, *_: HangingSource(ImageReader(data, settings), flag)
        )
        with pytest.raises(
            DataError,
            match=r"no images were loaded for 5 s; .* Step \d+ waits for .*trainA/.*png, .*trainB/.*png; resume",
        ):
            run.train(device="cpu", workers=1, callbacks=[Damage(2, hang)])
    assert workers
    assert set(worker_processes()).isdisjoint(workers)
    assert run.train(device="cpu").reason == "finished"
    assert rows(run) == rows(whole)


def worker_processes() -> list[int]:
    """The processes that load images for this one."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


def files_until(run: Run, step: int) -> list[Path]:
    """The files that the first steps read."""
    batches = TrainingBatches(open_dataset(run.data), run.recipe.data, batch_size=1, seed=run.recipe.training.seed)
    return [file for index in range(step) for file in batches.files(index)]

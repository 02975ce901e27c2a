"""Checkpoints and the folder they lie in: what is written, what is kept, what is refused, and what is damaged or missing."""

import contextlib
import fnmatch
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from _helpers.small import make_dataset, make_lively, make_tiny
from _helpers.states import assert_same_state, final_state, rows

import gantoolkit
from gantoolkit.errors import CheckpointError, DataError, GantoolkitError
from gantoolkit.files.tensors import read_header, read_tensors, write_tensors
from gantoolkit.recipes import Recipe
from gantoolkit.run import Run
from gantoolkit.runs import RunFolder, load_generator
from gantoolkit.training import Event, StepDone

ROOT = Path(__file__).parents[2]
STEPS = 10


@pytest.fixture(scope="module")
def wholes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """Runs of both recipes that nothing disturbed."""
    place = tmp_path_factory.mktemp("wholes")
    data = make_dataset(place / "images")
    recipes = {"tiny": make_tiny(), "lively": make_lively()}
    return {
        name: gantoolkit.train(recipe, data, place / name, device="cpu", cache="none")
        for name, recipe in recipes.items()
    }


class TestCheckpoints:
    def test_one_of_another_format_is_refused_in_a_sentence(self, tiny: Recipe, dataset: Path, tmp_path: Path) -> None:
        run = gantoolkit.train(tiny, dataset, tmp_path / "run", stop_at=2)
        path = run.folder.list_checkpoints()[-1]
        header, tensors = read_header(path), read_tensors(path)
        write_tensors(path, tensors, {**header, "format": "gantoolkit checkpoint 1"})
        with pytest.raises(CheckpointError, match="is a 'gantoolkit checkpoint 1', this gantoolkit continues a"):
            Run.open(run.path).train()

    @pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "garbage"])
    def test_a_damaged_newest_one_is_named_and_the_one_before_used(
        self, wholes: dict[str, Run], damage: str, lively: Recipe, dataset: Path, tmp_path: Path
    ) -> None:
        whole = wholes["lively"]
        run = gantoolkit.train(lively, dataset, tmp_path / "run", device="cpu", stop_at=8)
        newest = run.folder.list_checkpoints()[-1]
        content = bytearray(newest.read_bytes())
        if damage == "flipped":
            content[-100] ^= 4
        damaged = {"truncated": content[:-500], "flipped": content, "empty": b"", "garbage": b"\x00" * 999}[damage]
        newest.write_bytes(damaged)
        with pytest.warns(UserWarning, match=f"{newest.name}: .*; the previous checkpoint is used"):
            run.train(device="cpu")
        assert_same_state(whole, run)

    def test_one_of_another_recipe_is_refused_with_the_difference(
        self, tiny: Recipe, dataset: Path, tmp_path: Path
    ) -> None:
        gantoolkit.train(tiny, dataset, tmp_path / "run", device="cpu", stop_at=2)
        with pytest.raises(
            CheckpointError, match=r"holds a run of another recipe: cycle_weight is 3\.0 here and 10\.0 there"
        ):
            gantoolkit.train(tiny.swap(cycle_weight=3.0), dataset, tmp_path / "run", device="cpu")
        other = gantoolkit.train(tiny.swap(cycle_weight=3.0), dataset, tmp_path / "other", device="cpu", stop_at=1)
        stray = RunFolder(tmp_path / "run").list_checkpoints()[0]
        stray.replace(other.folder.checkpoints / "step-00000002.safetensors")
        with pytest.raises(
            CheckpointError, match=r"step-00000002\.safetensors: belongs to another recipe: cycle_weight"
        ):
            other.train(device="cpu")

    def test_they_hold_their_recipe_and_are_no_pickles(self, tiny: Recipe, dataset: Path, tmp_path: Path) -> None:
        run = gantoolkit.train(tiny, dataset, tmp_path / "run", device="cpu", stop_at=1)
        path = run.folder.list_checkpoints()[0]
        header = read_header(path)
        assert Recipe.from_toml(header["recipe"]).resolve() == run.recipe
        assert header["progress"]["step"] == 1
        with pytest.raises(CheckpointError, match="is not a generator file but 'gantoolkit checkpoint 2'"):
            load_generator(path)

    def test_a_finished_run_stays_finished(self, tiny: Recipe, dataset: Path, tmp_path: Path) -> None:
        run = gantoolkit.train(tiny, dataset, tmp_path / "run", device="cpu")
        before = final_state(run)
        assert run.train(device="cpu").reason == "finished"
        assert all(torch.equal(tensor, before[name]) for name, tensor in final_state(run).items())

    def test_the_data_may_move_but_must_be_as_many(self, tiny: Recipe, dataset: Path, tmp_path: Path) -> None:
        gantoolkit.train(tiny, dataset, tmp_path / "run", device="cpu")
        dataset.rename(tmp_path / "moved")
        (tmp_path / "run").rename(tmp_path / "run2")
        with pytest.raises(DataError, match="no such folder"):
            Run.open(tmp_path / "run2").train(device="cpu")
        assert Run.open(tmp_path / "run2", data=tmp_path / "moved").train(device="cpu").reason == "finished"
        few = make_dataset(tmp_path / "few", count_A=2, count_B=2)
        with pytest.raises(
            CheckpointError,
            match=r"was started on other images \(5 of A, 4 of B, .* than there are now \(2 of A, 2 of B",
        ):
            Run.open(tmp_path / "run2", data=few).train(device="cpu")


class TestStrangeFiles:
    """What a person, or a disk, may leave in a run's folder."""

    @pytest.mark.parametrize("name", ["step-backup", "step-00000004 (copy)", "step-99999999"])
    def test_a_copy_is_not_continued_from(
        self, name: str, tiny: Recipe, dataset: Path, tmp_path: Path, recwarn
    ) -> None:
        run = gantoolkit.train(tiny, dataset, tmp_path / "run", device="cpu", stop_at=8)
        first, newest = run.folder.list_checkpoints()
        (run.folder.checkpoints / f"{name}.safetensors").write_bytes(first.read_bytes())
        events: list[Event] = []
        Run.open(run.path).train(device="cpu", stop_at=9, callbacks=[events.append])
        assert [event.step for event in events if isinstance(event, StepDone)] == [9]
        said = [str(warning.message) for warning in recwarn]
        assert any("is one of step 4, which its name does not say" in text for text in said) == name.endswith("9")
        assert newest.exists()

    @pytest.mark.parametrize("line", ["\x01{", "[1]", "5", '{"a": 1}', '{"step": "x"}', "[" * 5000])
    def test_a_damaged_line_of_the_log_is_left_out_alone(
        self, line: str, tiny: Recipe, dataset: Path, tmp_path: Path
    ) -> None:
        run = gantoolkit.train(tiny, dataset, tmp_path / "run", device="cpu", stop_at=8)
        rows = run.folder.log.read_text().splitlines()
        run.folder.log.write_text("\n".join([rows[0], line, *rows[2:]]) + "\n")
        with pytest.warns(UserWarning, match="1 damaged lines are skipped"):
            run.train(device="cpu")
        assert [json.loads(row)["step"] for row in run.folder.log.read_text().splitlines()] == [2, 6, 8, 10]

    @pytest.mark.parametrize("text", ["[]", "{}", "null", '{"data": 5}', "[" * 100_000, "\x00"])
    def test_what_does_not_say_where_the_data_are_is_told_so(
        self, text: str, tiny: Recipe, dataset: Path, tmp_path: Path
    ) -> None:
        run = gantoolkit.train(tiny, dataset, tmp_path / "run", device="cpu", stop_at=1)
        run.folder.metadata_file.write_text(text)
        with pytest.raises(CheckpointError, match=r"run\.json: .*; say with --data where the data set is"):
            Run.open(run.path)

    def test_a_run_among_its_own_images_is_refused(self, tiny: Recipe, dataset: Path) -> None:
        with pytest.raises(
            CheckpointError, match="where its samples would become part of the data set; choose another --out"
        ):
            gantoolkit.train(tiny, dataset, dataset / "trainA" / "run", device="cpu")


class TestDamage:
    def test_the_older_of_two_stays_when_the_newest_is_damaged(
        self, lively: Recipe, dataset: Path, tmp_path: Path
    ) -> None:
        run = gantoolkit.train(lively, dataset, tmp_path / "run", device="cpu", stop_at=8)
        run.folder.list_checkpoints()[-1].write_bytes(b"")
        with pytest.warns(UserWarning, match="the previous checkpoint is used"):
            run.train(device="cpu", stop_at=5)
        # One of step 5 is new, one of step 8 is damaged: that of step 4 is the second to go back to.
        assert [path.stem for path in run.folder.list_checkpoints()] == [f"step-0000000{step}" for step in (4, 5, 8)]

    def test_where_all_are_damaged_the_run_begins_anew_and_says_so(
        self, wholes: dict[str, Run], lively: Recipe, dataset: Path, tmp_path: Path
    ) -> None:
        whole = wholes["lively"]
        run = gantoolkit.train(lively, dataset, tmp_path / "run", device="cpu", stop_at=8)
        for path in run.folder.list_checkpoints():
            path.write_bytes(b"")
        with pytest.warns(UserWarning, match="step-0000000") as warned:
            run.train(device="cpu")
        assert [str(one.message).rpartition("; ")[2] for one in warned] == [
            "the previous checkpoint is used",
            "there is no earlier one: the run starts again from step 0",
        ]
        assert_same_state(whole, run)

    def test_one_that_reads_otherwise_than_it_was_written_never_takes_its_place(
        self, tiny: Recipe, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from gantoolkit.training import tensorfile

        run = gantoolkit.train(tiny, dataset, tmp_path / "run", device="cpu", stop_at=2)
        before = contents(run.folder)

        def lie(tensors, path, metadata) -> None:
            save_file(tensors, path, metadata)
            content = bytearray(Path(path).read_bytes())
            content[-5] ^= 1
            Path(path).write_bytes(content)

        save_file = tensorfile.save_file
        with monkeypatch.context() as patch:
            patch.setattr(tensorfile, "save_file", lie)
            with pytest.raises(
                CheckpointError, match="was not saved: the disk returns different bytes from those written"
            ):
                run.train(device="cpu", stop_at=4)
        assert contents(run.folder) == before
        assert run.train(device="cpu").reason == "finished"

    def test_numbers_that_are_no_numbers_are_read_back_too(self, tmp_path: Path) -> None:
        tensors = {"nan": torch.tensor([torch.nan, -torch.nan]), "half": torch.ones(3, dtype=torch.bfloat16)}
        write_tensors(tmp_path / "file.safetensors", {**tensors, "one": torch.tensor(1)}, {})
        assert read_tensors(tmp_path / "file.safetensors")["half"].dtype == torch.bfloat16

    def test_fewer_than_two_cannot_be_asked_for(self, tiny: Recipe) -> None:
        with pytest.raises(GantoolkitError, match="keep_checkpoints"):
            tiny.swap({"training.keep_checkpoints": 1})

    def test_what_a_killed_process_had_begun_is_removed(self, tiny: Recipe, dataset: Path, tmp_path: Path) -> None:
        run = gantoolkit.train(tiny, dataset, tmp_path / "run", device="cpu", stop_at=2)
        folder = run.folder
        begun = [folder.checkpoints, folder.generators, folder.samples, folder.path]
        for place in begun:
            (place / ".left.png.part").write_bytes(b"half")
        run.train(device="cpu")
        assert list(folder.path.rglob(".*.part")) == []


class TestFullDisk:
    def test_a_file_that_grows_too_large_leaves_the_old_ones_whole(
        self, wholes: dict[str, Run], tiny: Recipe, dataset: Path, tmp_path: Path
    ) -> None:
        """In a process of its own, whose files may take half of what a checkpoint takes."""
        whole = wholes["tiny"]
        run = gantoolkit.train(tiny, dataset, tmp_path / "run", device="cpu", stop_at=4)
        before = contents(run.folder)
        size = run.folder.list_checkpoints()[0].stat().st_size
        program = (
            "import resource, sys\nfrom gantoolkit.cli import main\n"
            f"resource.setrlimit(resource.RLIMIT_FSIZE, ({size // 2}, resource.RLIM_INFINITY))\n"
            "sys.exit(main(sys.argv[1:]))"
        )
        done = subprocess.run(
            [sys.executable, "-c", program, "train", "--resume", run.path, "--device=cpu", "--cache=none"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 2
        complaint = (
            r"step-00000008\.safetensors: .* \(File too large; it needs \d\.\d MB in one file, and a file may take"
        )
        assert re.search(complaint, done.stderr), done.stderr
        assert "Traceback" not in done.stderr
        assert contents(run.folder) == before
        assert list(run.path.rglob(".*.part")) == []
        run.train(device="cpu")
        assert_same_state(whole, run)

    @pytest.mark.parametrize(
        ("moment", "named"),
        [
            ("os.mkdir */checkpoints", r"step-0000000\d\.safetensors: .*; it needs 0\.\d MB, and 0\.0 MB are free"),
            ("os.mkdir */generators", r"[AB]2[AB]\.safetensors: .*; it needs 0\.\d MB, and 0\.0 MB are free"),
            ("open */samples/.*.part", r"samples/step-\d+\.png: "),
            ("open */log.jsonl", r"log\.jsonl: .*; it needs more, and 0\.0 MB are free"),
            ("open */.log.csv.part", r"log\.csv: .*; it needs more, and 0\.0 MB are free"),
            ("open */.report.html.part", r"report\.html: .*; it needs \d\.\d MB, and 0\.0 MB are free"),
            ("open */tensorboard/events*", r"tensorboard: .*; it needs more, and 0\.0 MB are free"),
            ("open */.recipe.toml.part", r"run: .*; it needs more, and 0\.0 MB are free"),
        ],
        ids=["checkpoint", "generator", "sample", "row", "table", "report", "tensorboard", "recipe"],
    )
    def test_a_disk_that_is_full_at_any_writer_is_explained_and_the_run_goes_on_when_there_is_room(
        self,
        wholes: dict[str, Run],
        moment: str,
        named: str,
        tiny: Recipe,
        dataset: Path,
        small_disk: Path,
        tmp_path: Path,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        whole = wholes["tiny"]
        out = small_disk / "run"
        with fill_at(moment, small_disk / "ballast"), pytest.raises(GantoolkitError) as caught:
            gantoolkit.train(tiny, dataset, out, device="cpu")
        assert re.search(named, str(caught.value)), caught.value
        assert "No space left on device" in str(caught.value)
        assert "Traceback" not in capfd.readouterr().err  # of a thread of TensorBoard's
        assert list(out.rglob(".*.part")) == []
        (small_disk / "ballast").unlink()
        run = gantoolkit.train(tiny, dataset, out, device="cpu")
        assert_same_state(whole, run)
        assert rows(whole) == rows(run)


class TestFolder:
    def test_one_that_cannot_be_written_is_named(self, tiny: Recipe, dataset: Path, small_disk: Path) -> None:
        run = gantoolkit.train(tiny, dataset, small_disk / "run", device="cpu", stop_at=2)
        before = contents(run.folder)
        subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
        try:
            with pytest.raises(CheckpointError, match=r"run: cannot be written \(Read-only file system\)"):
                Run.open(run.path).train(device="cpu")
            with pytest.raises(CheckpointError, match=r"new: cannot be written \(Read-only file system\)"):
                gantoolkit.train(tiny, dataset, small_disk / "new", device="cpu")
            assert run.translator("A2B") is not None
        finally:
            subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
        assert contents(run.folder) == before

    def test_one_that_becomes_so_while_the_run_trains(
        self, wholes: dict[str, Run], lively: Recipe, dataset: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "run"

        def freeze(flag: str) -> int:
            return subprocess.run(["chattr", flag, out / "checkpoints"], capture_output=True, check=False).returncode

        (out / "checkpoints").mkdir(parents=True)
        if freeze("+i"):
            pytest.skip("folders cannot be made immutable here (chattr +i)")
        freeze("-i")
        try:
            with pytest.raises(CheckpointError, match=r"safetensors: cannot be written \(Operation not permitted\)"):
                gantoolkit.train(lively, dataset, out, device="cpu", callbacks=[after(5, lambda: freeze("+i"))])
        finally:
            freeze("-i")
        assert_same_state(wholes["lively"], gantoolkit.train(lively, dataset, out, device="cpu"))

    @pytest.mark.parametrize("step", [3, 6, 9])
    def test_one_that_vanishes_while_the_run_trains(
        self, step: int, tiny: Recipe, dataset: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        out = tmp_path / "run"
        with pytest.raises(CheckpointError, match=r"run.*(has gone|No such file)"):
            gantoolkit.train(tiny, dataset, out, device="cpu", callbacks=[after(step, lambda: shutil.rmtree(out))])
        assert "Traceback" not in capfd.readouterr().err
        assert gantoolkit.train(tiny, dataset, out, device="cpu").path == out  # anew

    def test_a_file_in_its_place_is_named(self, tiny: Recipe, dataset: Path, tmp_path: Path) -> None:
        (tmp_path / "run").write_text("mine")
        with pytest.raises(CheckpointError, match=r"run: cannot be written \(File exists\)"):
            gantoolkit.train(tiny, dataset, tmp_path / "run", device="cpu")
        assert (tmp_path / "run").read_text() == "mine"

    def test_one_that_was_moved_goes_on_where_it_is(
        self, wholes: dict[str, Run], lively: Recipe, dataset: Path, tmp_path: Path
    ) -> None:
        whole = wholes["lively"]
        gantoolkit.train(lively, dataset, tmp_path / "run", device="cpu", stop_at=6)
        (tmp_path / "elsewhere").mkdir()
        shutil.move(tmp_path / "run", tmp_path / "elsewhere" / "moved")
        run = Run.open(tmp_path / "elsewhere" / "moved")
        run.train(device="cpu")
        assert_same_state(whole, run)
        assert rows(whole) == rows(run)
        assert not (tmp_path / "run").exists()

    def test_two_processes_do_not_train_in_one(self, tiny: Recipe, dataset: Path, tmp_path: Path) -> None:
        out = tmp_path / "run"
        refused: list[str] = []

        def try_too() -> None:
            with pytest.raises(CheckpointError) as caught:
                gantoolkit.train(tiny, dataset, out, device="cpu")
            refused.append(str(caught.value))

        run = gantoolkit.train(tiny, dataset, out, device="cpu", callbacks=[after(5, try_too)])
        (complaint,) = refused
        assert complaint.startswith(f"{out}: process {os.getpid()} on ")
        assert complaint.endswith("is training in this folder; wait until it has ended, or stop it")
        assert final_state(run)

    def test_a_lock_that_a_dead_process_left_means_nothing(self, tiny: Recipe, dataset: Path, tmp_path: Path) -> None:
        run = gantoolkit.train(tiny, dataset, tmp_path / "run", device="cpu", stop_at=2)
        run.folder.lock_file.write_text("process 1 on elsewhere\n")
        assert run.train(device="cpu").reason == "finished"


class TestAnotherRecipe:
    RHYTHM = {
        "data.max_bad_files": 3,
        "training.checkpoint_every": 3,
        "training.evaluate_every": 5,
        "training.keep_checkpoints": 3,
        "training.log_every": 5,
        "training.sample_every": 5,
        "training.samples": 1,
    }

    def test_a_run_may_go_on_in_another_rhythm_and_says_in_which(
        self, wholes: dict[str, Run], lively: Recipe, dataset: Path, tmp_path: Path
    ) -> None:
        whole = wholes["lively"]
        gantoolkit.train(lively, dataset, tmp_path / "run", device="cpu", stop_at=4)
        changed = lively.swap(self.RHYTHM)
        with pytest.warns(UserWarning, match="weights do not depend on it") as warned:
            run = gantoolkit.train(changed, dataset, tmp_path / "run", device="cpu", stop_at=7)
        said = str(warned[0].message)
        assert [name for name in self.RHYTHM if f"{name} is {self.RHYTHM[name]!r} here and" not in said] == []
        assert run.folder.read_recipe().resolve() == changed.resolve()
        Run.open(tmp_path / "run").train(device="cpu")
        assert_same_state(whole, run)
        assert [row["step"] for row in rows(run) if "epoch" in row] == [2, 4, 5, 10]

    @pytest.mark.parametrize(
        "field",
        [
            {"training.epochs": 3},
            {"training.batch_size": 2},
            {"training.seed": 1},
            {"training.precision": "bf16"},
            {"training.deterministic": False},
            {"training.evaluate_images": 1},
            {"metric": "l1"},
            {"data.flip": False},
            {"optimizer.lr": 1e-3},
            {"identity_weight": 1.0},
            {"generator.blocks": 2},
            {"image_pool.size": 2},
        ],
        ids=str,
    )
    def test_what_learns_otherwise_is_refused_by_name_and_nothing_is_touched(
        self, field: dict[str, object], tiny: Recipe, dataset: Path, tmp_path: Path
    ) -> None:
        folder = RunFolder(tmp_path / "run")
        Run.start(tiny, dataset, folder.path)
        before = folder.recipe_file.read_text()
        (name,) = field
        with pytest.raises(
            CheckpointError, match=rf"holds a run of another recipe: {re.escape(name)}.* is .* here and"
        ):
            Run.start(tiny.swap(field), dataset, folder.path)
        assert folder.recipe_file.read_text() == before


def contents(folder: RunFolder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.checkpoints.iterdir()}


def after(step: int, act: Callable[[], object]) -> Callable[[Event], None]:
    """A callback that does something once a step is done."""

    def note(event: Event) -> None:
        if isinstance(event, StepDone) and event.step == step:
            act()

    return note


class fill_at:  # noqa: N801 (reads as a function)
    """Fill a disk at the first of Python's audit events whose name and first argument fit a pattern."""

    waiting: "fill_at | None" = None
    is_hooked = False

    def __init__(self, pattern: str, ballast: Path) -> None:
        self.pattern, self.ballast = pattern, ballast

    def __enter__(self) -> None:
        fill_at.waiting = self
        if not fill_at.is_hooked:  # a hook stays for good
            fill_at.is_hooked = True
            sys.addaudithook(fill_at.note)

    def __exit__(self, *error: object) -> None:
        fill_at.waiting = None

    @staticmethod
    def note(event: str, arguments: tuple[object, ...]) -> None:
        waiting = fill_at.waiting
        if waiting is not None and fnmatch.fnmatchcase(f"{event} {arguments[0] if arguments else ''}", waiting.pattern):
            fill_at.waiting = None
            with waiting.ballast.open("wb", buffering=0) as file:
                for size in (65536, 4096, 1):
                    with contextlib.suppress(OSError):
                        while file.write(b"\0" * size):
                            pass


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few MB."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", place], capture_output=True, check=False)
    if made.returncode:
        pytest.skip(f"no file system can be mounted here: {made.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", place], check=True)

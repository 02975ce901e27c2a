"""Checkpoints and run folders: what is written, what stays, what is refused, and how damaged or missing files are handled."""

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
from _helpers.patience import PATIENCE
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
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """A run of each recipe without an interruption."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    data = make_dataset(folder / "images")
    recipes = {"tiny": make_tiny(), "lively": make_lively()}
    return {
        name: gantoolkit.train(recipe, data, folder / name, device="cpu", cache="none")
        for name, recipe in recipes.items()
    }


class TestCheckpoints:
    def test_checkpoint_of_another_format_is_refused(self, tiny: Recipe, dataset: Path, tmp_path: Path) -> None:
        run = gantoolkit.train(tiny, dataset, tmp_path / "run", stop_at=2)
        path = run.folder.list_checkpoints()[-1]
        header, tensors = read_header(path), read_tensors(path)
        write_tensors(path, tensors, {**header, "format": "gantoolkit checkpoint 1"})
        with pytest.raises(CheckpointError, match="is a 'gantoolkit checkpoint 1', and this gantoolkit resumes a"):
            Run.open(run.path).train()

    @pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "garbage"])
    def test_damaged_newest_checkpoint_is_named_and_the_previous_one_is_used(
        self, uninterrupted: dict[str, Run], damage: str, lively: Recipe, dataset: Path, tmp_path: Path
    ) -> None:
        run = gantoolkit.train(lively, dataset, tmp_path / "run", device="cpu", stop_at=8)
        newest = run.folder.list_checkpoints()[-1]
        content = bytearray(newest.read_bytes())
        if damage == "flipped":
            content[-100] ^= 4
        variants = {"truncated": content[:-500], "flipped": content, "empty": b"", "garbage": b"\x00" * 999}
        newest.write_bytes(variants[damage])
        with pytest.warns(UserWarning, match=f"{newest.name}: .*; the previous checkpoint is used"):
            run.train(device="cpu")
        assert_same_state(uninterrupted["lively"], run)

    def test_checkpoint_of_another_recipe_is_refused_with_the_difference(
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

    def test_checkpoint_contains_its_recipe_and_is_not_a_pickle(
        self, tiny: Recipe, dataset: Path, tmp_path: Path
    ) -> None:
        run = gantoolkit.train(tiny, dataset, tmp_path / "run", device="cpu", stop_at=1)
        path = run.folder.list_checkpoints()[0]
        header = read_header(path)
        assert Recipe.from_toml(header["recipe"]).resolve() == run.recipe
        assert header["progress"]["step"] == 1
        with pytest.raises(CheckpointError, match="is not a generator file but 'gantoolkit checkpoint 3'"):
            load_generator(path)

    def test_finished_run_stays_finished(self, tiny: Recipe, dataset: Path, tmp_path: Path) -> None:
        run = gantoolkit.train(tiny, dataset, tmp_path / "run", device="cpu")
        before = final_state(run)
        assert run.train(device="cpu").reason == "finished"
        assert all(torch.equal(tensor, before[name]) for name, tensor in final_state(run).items())

    def test_data_set_may_move_but_not_lose_images(self, tiny: Recipe, dataset: Path, tmp_path: Path) -> None:
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


class TestUnexpectedFiles:
    """Files that a person, or a disk, may leave in a run's folder."""

    @pytest.mark.parametrize("name", ["step-backup", "step-00000004 (copy)", "step-99999999"])
    def test_run_is_not_resumed_from_a_copy(
        self, name: str, tiny: Recipe, dataset: Path, tmp_path: Path, recwarn
    ) -> None:
        run = gantoolkit.train(tiny, dataset, tmp_path / "run", device="cpu", stop_at=8)
        first, newest = run.folder.list_checkpoints()
        (run.folder.checkpoints / f"{name}.safetensors").write_bytes(first.read_bytes())
        events: list[Event] = []
        Run.open(run.path).train(device="cpu", stop_at=9, callbacks=[events.append])
        assert [event.step for event in events if isinstance(event, StepDone)] == [9]
        messages = [str(warning.message) for warning in recwarn]
        complaint = "is a checkpoint of step 4, which does not match its name"
        assert any(complaint in message for message in messages) == name.endswith("9")
        assert newest.exists()

    @pytest.mark.parametrize("line", ["\x01{", "[1]", "5", '{"a": 1}', '{"step": "x"}', "[" * 5000])
    def test_only_the_damaged_line_of_a_log_is_skipped(
        self, line: str, tiny: Recipe, dataset: Path, tmp_path: Path
    ) -> None:
        run = gantoolkit.train(tiny, dataset, tmp_path / "run", device="cpu", stop_at=8)
        rows = run.folder.log.read_text().splitlines()
        run.folder.log.write_text("\n".join([rows[0], line, *rows[2:]]) + "\n")
        with pytest.warns(UserWarning, match="1 damaged lines are skipped"):
            run.train(device="cpu")
        assert [json.loads(row)["step"] for row in run.folder.log.read_text().splitlines()] == [2, 6, 8, 10]

    @pytest.mark.parametrize("text", ["[]", "{}", "null", '{"data": 5}', "[" * 100_000, "\x00"])
    def test_metadata_without_the_data_set_is_reported(
        self, text: str, tiny: Recipe, dataset: Path, tmp_path: Path
    ) -> None:
        run = gantoolkit.train(tiny, dataset, tmp_path / "run", device="cpu", stop_at=1)
        run.folder.metadata_file.write_text(text)
        with pytest.raises(CheckpointError, match=r"run\.json: .*; pass the path of the data set with --data"):
            Run.open(run.path)

    def test_run_inside_its_training_images_is_refused(self, tiny: Recipe, dataset: Path) -> None:
        with pytest.raises(
            CheckpointError, match="where its samples would become part of the data set; choose another --out"
        ):
            gantoolkit.train(tiny, dataset, dataset / "trainA" / "run", device="cpu")


class TestDamage:
    def test_older_checkpoint_stays_while_the_newest_is_damaged(
        self, lively: Recipe, dataset: Path, tmp_path: Path
    ) -> None:
        run = gantoolkit.train(lively, dataset, tmp_path / "run", device="cpu", stop_at=8)
        run.folder.list_checkpoints()[-1].write_bytes(b"")
        with pytest.warns(UserWarning, match="the previous checkpoint is used"):
            run.train(device="cpu", stop_at=5)
        # Step 8 is damaged, so steps 4 and 5 are the two intact checkpoints to keep.
        assert [path.stem for path in run.folder.list_checkpoints()] == [f"step-0000000{step}" for step in (4, 5, 8)]

    def test_run_starts_again_with_a_warning_if_all_checkpoints_are_damaged(
        self, uninterrupted: dict[str, Run], lively: Recipe, dataset: Path, tmp_path: Path
    ) -> None:
        run = gantoolkit.train(lively, dataset, tmp_path / "run", device="cpu", stop_at=8)
        for path in run.folder.list_checkpoints():
            path.write_bytes(b"")
        with pytest.warns(UserWarning, match="step-0000000") as records:
            run.train(device="cpu")
        assert [str(record.message).rpartition("; ")[2] for record in records] == [
            "the previous checkpoint is used",
            "there is no earlier one: the run starts again from step 0",
        ]
        assert_same_state(uninterrupted["lively"], run)

    def test_checkpoint_that_reads_back_differently_replaces_nothing(
        self, tiny: Recipe, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from gantoolkit.files import tensors as tensor_files

        run = gantoolkit.train(tiny, dataset, tmp_path / "run", device="cpu", stop_at=2)
        before = contents(run.folder)

        def save_damaged(tensors, path, metadata) -> None:
            save_file(tensors, path, metadata)
            content = bytearray(Path(path).read_bytes())
            content[-5] ^= 1
            Path(path).write_bytes(content)

        save_file = tensor_files.save_file
        with monkeypatch.context() as patch:
            patch.setattr(tensor_files, "save_file", save_damaged)
            with pytest.raises(
                CheckpointError, match="was not saved: the disk returns different bytes from those written"
            ):
                run.train(device="cpu", stop_at=4)
        assert contents(run.folder) == before
        assert run.train(device="cpu").reason == "finished"

    @pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux lists the files that a process maps")
    def test_resumed_run_does_not_map_its_checkpoint(self, tiny: Recipe, dataset: Path, tmp_path: Path) -> None:
        """A mapped file occupies the disk after it is removed, and truncating it kills the process."""
        run = gantoolkit.train(tiny, dataset, tmp_path / "run", device="cpu", stop_at=4)
        maps: list[str] = []
        run.train(device="cpu", callbacks=[after(6, lambda: maps.append(Path("/proc/self/maps").read_text()))])
        assert len(maps) == 1
        assert str(run.folder.checkpoints) not in maps[0]

    def test_nan_and_bfloat16_are_read_back(self, tmp_path: Path) -> None:
        tensors = {"nan": torch.tensor([torch.nan, -torch.nan]), "half": torch.ones(3, dtype=torch.bfloat16)}
        write_tensors(tmp_path / "file.safetensors", {**tensors, "one": torch.tensor(1)}, {})
        assert read_tensors(tmp_path / "file.safetensors")["half"].dtype == torch.bfloat16

    def test_fewer_than_two_checkpoints_are_refused(self, tiny: Recipe) -> None:
        with pytest.raises(GantoolkitError, match="keep_checkpoints"):
            tiny.swap({"training.keep_checkpoints": 1})

    def test_temporary_files_of_a_killed_process_are_removed(self, tiny: Recipe, dataset: Path, tmp_path: Path) -> None:
        run = gantoolkit.train(tiny, dataset, tmp_path / "run", device="cpu", stop_at=2)
        folder = run.folder
        for parent in (folder.checkpoints, folder.generators, folder.samples, folder.path):
            (parent / ".left.png.part").write_bytes(b"half")
        run.train(device="cpu")
        assert list(folder.path.rglob(".*.part")) == []


@pytest.mark.slow(reason="trains on file systems that are filled, and in a subprocess: about 20 s in total")
class TestFullDisk:
    def test_file_size_limit_leaves_the_old_files_intact(
        self, uninterrupted: dict[str, Run], tiny: Recipe, dataset: Path, tmp_path: Path
    ) -> None:
        """In a subprocess whose file size limit is half of a checkpoint."""
        run = gantoolkit.train(tiny, dataset, tmp_path / "run", device="cpu", stop_at=4)
        before = contents(run.folder)
        size = run.folder.list_checkpoints()[0].stat().st_size
        program = (
            "import resource, sys\nfrom gantoolkit.cli import main\n"
            f"resource.setrlimit(resource.RLIMIT_FSIZE, ({size // 2}, resource.RLIM_INFINITY))\n"
            "sys.exit(main(sys.argv[1:]))"
        )
        completed = subprocess.run(
            [sys.executable, "-c", program, "train", "--resume", run.path, "--device=cpu", "--cache=none"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert completed.returncode == 2
        complaint = (
            r"step-00000008\.safetensors: .* \(File too large; it needs \d\.\d MB in one file, and a file may take"
        )
        assert re.search(complaint, completed.stderr), completed.stderr
        assert "Traceback" not in completed.stderr
        assert contents(run.folder) == before
        assert list(run.path.rglob(".*.part")) == []
        run.train(device="cpu")
        assert_same_state(uninterrupted["tiny"], run)

    @pytest.mark.parametrize(
        ("event", "message"),
        [
            ("os.mkdir */checkpoints", r"step-0000000\d\.safetensors: .*; it needs 0\.\d MB, and 0\.0 MB are free"),
            ("os.mkdir */generators", r"[AB]2[AB]\.safetensors: .*; it needs [\d.]+ kB, and 0\.0 MB are free"),
            ("open */samples/.*.part", r"samples/step-\d+\.png: "),
            ("open */log.jsonl", r"log\.jsonl: .*; it needs more, and 0\.0 MB are free"),
            ("open */.log.csv.part", r"log\.csv: .*; it needs more, and 0\.0 MB are free"),
            ("open */.report.html.part", r"report\.html: .*; it needs \d\.\d MB, and 0\.0 MB are free"),
            ("open */tensorboard/events*", r"tensorboard: .*; it needs more, and 0\.0 MB are free"),
            ("open */.recipe.toml.part", r"run/recipe\.toml: .*; it needs \d\.\d kB, and 0\.0 MB are free"),
        ],
        ids=["checkpoint", "generator", "sample", "row", "table", "report", "tensorboard", "recipe"],
    )
    def test_full_disk_is_explained_and_the_run_resumes_with_free_space(
        self,
        uninterrupted: dict[str, Run],
        event: str,
        message: str,
        tiny: Recipe,
        dataset: Path,
        small_disk: Path,
        tmp_path: Path,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        out = small_disk / "run"
        with fill_at(event, small_disk / "ballast"), pytest.raises(GantoolkitError) as error:
            gantoolkit.train(tiny, dataset, out, device="cpu")
        assert re.search(message, str(error.value)), error.value
        assert "No space left on device" in str(error.value)
        assert "Traceback" not in capfd.readouterr().err  # from TensorBoard's thread
        assert list(out.rglob(".*.part")) == []
        (small_disk / "ballast").unlink()
        run = gantoolkit.train(tiny, dataset, out, device="cpu")
        assert_same_state(uninterrupted["tiny"], run)
        assert rows(run) == rows(uninterrupted["tiny"])


class TestFolder:
    def test_read_only_folder_is_named(self, tiny: Recipe, dataset: Path, small_disk: Path) -> None:
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

    def test_folder_that_becomes_read_only_during_training(
        self, uninterrupted: dict[str, Run], lively: Recipe, dataset: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "run"

        def change_attribute(flag: str) -> int:
            return subprocess.run(["chattr", flag, out / "checkpoints"], capture_output=True, check=False).returncode

        (out / "checkpoints").mkdir(parents=True)
        if change_attribute("+i"):
            pytest.skip("folders cannot be made immutable here (chattr +i)")
        change_attribute("-i")
        try:
            with pytest.raises(CheckpointError, match=r"safetensors: cannot be written \(Operation not permitted\)"):
                gantoolkit.train(
                    lively, dataset, out, device="cpu", callbacks=[after(5, lambda: change_attribute("+i"))]
                )
        finally:
            change_attribute("-i")
        assert_same_state(uninterrupted["lively"], gantoolkit.train(lively, dataset, out, device="cpu"))

    @pytest.mark.parametrize("step", [3, 6, 9])
    def test_folder_that_is_deleted_during_training(
        self, step: int, tiny: Recipe, dataset: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        out = tmp_path / "run"
        with pytest.raises(CheckpointError, match=r"run.*(was deleted while the run trained|No such file)"):
            gantoolkit.train(tiny, dataset, out, device="cpu", callbacks=[after(step, lambda: shutil.rmtree(out))])
        assert "Traceback" not in capfd.readouterr().err
        assert gantoolkit.train(tiny, dataset, out, device="cpu").path == out

    def test_file_at_the_path_of_the_folder_is_named(self, tiny: Recipe, dataset: Path, tmp_path: Path) -> None:
        (tmp_path / "run").write_text("mine")
        with pytest.raises(CheckpointError, match=r"run: cannot be written \(File exists\)"):
            gantoolkit.train(tiny, dataset, tmp_path / "run", device="cpu")
        assert (tmp_path / "run").read_text() == "mine"

    def test_moved_folder_is_resumed_at_its_new_path(
        self, uninterrupted: dict[str, Run], lively: Recipe, dataset: Path, tmp_path: Path
    ) -> None:
        gantoolkit.train(lively, dataset, tmp_path / "run", device="cpu", stop_at=6)
        (tmp_path / "elsewhere").mkdir()
        shutil.move(tmp_path / "run", tmp_path / "elsewhere" / "moved")
        run = Run.open(tmp_path / "elsewhere" / "moved")
        run.train(device="cpu")
        assert_same_state(uninterrupted["lively"], run)
        assert rows(run) == rows(uninterrupted["lively"])
        assert not (tmp_path / "run").exists()

    def test_two_processes_cannot_train_in_one_folder(self, tiny: Recipe, dataset: Path, tmp_path: Path) -> None:
        out = tmp_path / "run"
        messages: list[str] = []

        def train_again() -> None:
            with pytest.raises(CheckpointError) as error:
                gantoolkit.train(tiny, dataset, out, device="cpu")
            messages.append(str(error.value))

        run = gantoolkit.train(tiny, dataset, out, device="cpu", callbacks=[after(5, train_again)])
        (complaint,) = messages
        assert complaint.startswith(f"{out}: process {os.getpid()} on ")
        assert complaint.endswith("is training in this folder; wait until it has exited, or stop it")
        assert final_state(run)

    def test_lock_of_a_dead_process_is_ignored(self, tiny: Recipe, dataset: Path, tmp_path: Path) -> None:
        run = gantoolkit.train(tiny, dataset, tmp_path / "run", device="cpu", stop_at=2)
        run.folder.lock_file.write_text("process 1 on elsewhere\n")
        assert run.train(device="cpu").reason == "finished"

    def test_only_folders_of_images_are_refused_inside_the_data_set(self, tiny: Recipe, dataset: Path) -> None:
        for name in ("trials", "temp"):
            (dataset / name).mkdir()
            assert Run.start(tiny, dataset, dataset / name / "run").folder.exists
        for name in ("trainA", "test"):
            with pytest.raises(
                CheckpointError, match=rf"{name}/run: is in .*{name}, where its samples would become part"
            ):
                Run.start(tiny, dataset, dataset / name / "run")
            assert not (dataset / name / "run").exists()


class TestAnotherRecipe:
    INTERVALS = {
        "data.max_bad_files": 3,
        "training.checkpoint_every": 3,
        "training.evaluate_every": 5,
        "training.keep_checkpoints": 3,
        "training.log_every": 5,
        "training.sample_every": 5,
        "training.samples": 1,
    }

    def test_run_may_continue_with_other_intervals_and_reports_them(
        self, uninterrupted: dict[str, Run], lively: Recipe, dataset: Path, tmp_path: Path
    ) -> None:
        gantoolkit.train(lively, dataset, tmp_path / "run", device="cpu", stop_at=4)
        changed = lively.swap(self.INTERVALS)
        with pytest.warns(UserWarning, match="weights do not depend on it") as records:
            run = gantoolkit.train(changed, dataset, tmp_path / "run", device="cpu", stop_at=7)
        message = str(records[0].message)
        assert [name for name, value in self.INTERVALS.items() if f"{name} is {value!r} here and" not in message] == []
        assert run.folder.read_recipe().resolve() == changed.resolve()
        Run.open(tmp_path / "run").train(device="cpu")
        assert_same_state(uninterrupted["lively"], run)
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
    def test_change_that_affects_weights_is_refused_by_name_and_nothing_is_written(
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


def after(step: int, action: Callable[[], object]) -> Callable[[Event], None]:
    """A callback that calls `action` after a step."""

    def handle(event: Event) -> None:
        if isinstance(event, StepDone) and event.step == step:
            action()

    return handle


class fill_at:  # noqa: N801 (reads as a function)
    """Fill a disk at the first audit event of Python whose name and first argument match a pattern."""

    active: "fill_at | None" = None
    has_hook = False

    def __init__(self, pattern: str, ballast: Path) -> None:
        self.pattern, self.ballast = pattern, ballast

    def __enter__(self) -> None:
        fill_at.active = self
        if not fill_at.has_hook:  # a hook cannot be removed
            fill_at.has_hook = True
            sys.addaudithook(fill_at.handle)

    def __exit__(self, *error: object) -> None:
        fill_at.active = None

    @staticmethod
    def handle(event: str, arguments: tuple[object, ...]) -> None:
        active = fill_at.active
        if active is not None and fnmatch.fnmatchcase(f"{event} {arguments[0] if arguments else ''}", active.pattern):
            fill_at.active = None
            with active.ballast.open("wb", buffering=0) as file:
                for size in (65536, 4096, 1):
                    with contextlib.suppress(OSError):
                        while file.write(b"\0" * size):
                            pass


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", disk], capture_output=True, check=False)
    if mount.returncode:
        pytest.skip(f"no file system can be mounted here: {mount.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", disk], check=True)

"""Drives that lack a step, such as syncing a folder: the step is passed over with one warning. Errors of a disk stay errors."""

import errno
import fcntl
import os
import re
import stat
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import gantoolkit
from gantoolkit.errors import CheckpointError, DataError
from gantoolkit.evaluation.study import Protocol, Store
from gantoolkit.files import drives
from gantoolkit.files.atomic import atomic_write
from gantoolkit.files.tensors import read_tensors, write_tensors
from gantoolkit.recipes import Recipe
from gantoolkit.runs import RunFolder


@pytest.fixture(autouse=True)
def _new_drives(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the warnings of other tests."""
    monkeypatch.setattr(drives, "reported", set())


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], None]:
    """Let a step fail with an error, as on a drive that lacks it."""
    sync, open_path = os.fsync, os.open

    def patch(step: str, code: int) -> None:
        def fail(*_: object, **__: object) -> None:
            raise OSError(code, os.strerror(code))

        def fsync(handle: int) -> None:
            is_folder = stat.S_ISDIR(os.fstat(handle).st_mode)
            return fail() if is_folder == (step == "sync a folder") else sync(handle)

        def open_file(path: Path, flags: int, mode: int = 0o777) -> int | None:
            return fail() if Path(path).is_dir() else open_path(path, flags, mode)

        match step:
            case "sync a folder" | "sync a file":
                monkeypatch.setattr(os, "fsync", fsync)
            case "open a folder":
                monkeypatch.setattr(os, "open", open_file)
            case "change the mode":
                monkeypatch.setattr(os, "chmod", fail)
            case "lock a file":
                monkeypatch.setattr(fcntl, "flock", fail)

    return patch


def write(path: Path, text: str) -> None:
    """Write a file as some libraries do, which create files that only their owner can read."""
    with atomic_write(path) as part:
        handle = os.open(part, os.O_CREAT | os.O_WRONLY, 0o600)
        os.write(handle, text.encode())
        os.close(handle)


@pytest.mark.parametrize(
    ("step", "code"),
    [
        ("sync a file", errno.EINVAL),
        ("sync a file", errno.ENOTSUP),
        ("sync a file", errno.EBADF),
        ("sync a folder", errno.EINVAL),
        ("sync a folder", errno.ENOSYS),
        ("sync a folder", errno.EBADF),
        ("open a folder", errno.EACCES),
        ("open a folder", errno.EINVAL),
        ("change the mode", errno.EPERM),
        ("change the mode", errno.EOPNOTSUPP),
    ],
)
def test_a_step_that_the_drive_lacks_is_passed_over_with_one_warning(
    step: str, code: int, refuse, tmp_path: Path
) -> None:
    refuse(step, code)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for number in range(3):
            write(tmp_path / str(number) / "file.txt", str(number))
            write(tmp_path / str(number) / "file.txt", f"again {number}")
    assert [path.read_text() for path in sorted(tmp_path.rglob("*.txt"))] == ["again 0", "again 1", "again 2"]
    assert not list(tmp_path.rglob("*.part"))
    assert len(caught) == 1
    assert re.search(r"/0: this drive cannot (sync|change) .* \(.+\); \w+", str(caught[0].message))


@pytest.mark.parametrize("step", ["sync a file", "sync a folder", "open a folder", "change the mode"])
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ESTALE])
def test_errors_of_the_disk_stay_errors(step: str, code: int, refuse, tmp_path: Path) -> None:
    refuse(step, code)
    with pytest.raises(OSError, match=re.escape(os.strerror(code))):
        write(tmp_path / "file.txt", "content")


def test_a_file_with_the_right_mode_needs_no_change(refuse, tmp_path: Path) -> None:
    refuse("change the mode", errno.EPERM)
    with atomic_write(tmp_path / "file.txt") as part:
        part.write_text("content")  # pytest turns a warning into an error


@pytest.mark.filterwarnings("ignore:.*this drive cannot")
def test_a_run_is_trained_and_resumed_on_a_drive_that_lacks_every_step(
    tiny: Recipe, dataset: Path, tmp_path: Path, refuse
) -> None:
    gantoolkit.train(tiny, dataset, tmp_path / "expected", device="cpu")
    for step, code in (
        ("open a folder", errno.EINVAL),
        ("change the mode", errno.EPERM),
        ("lock a file", errno.ENOSYS),
    ):
        refuse(step, code)
    refuse("sync a file", errno.EINVAL)
    gantoolkit.train(tiny, dataset, tmp_path / "run", device="cpu", stop_at=4)
    run = gantoolkit.train(tiny, dataset, tmp_path / "run", device="cpu")
    for path in (tmp_path / "expected" / "checkpoints").iterdir():
        expected, tensors = read_tensors(path), read_tensors(run.folder.checkpoints / path.name)
        assert all(torch.equal(tensor, expected[name]) for name, tensor in tensors.items())
    assert run.report.is_file()


def test_a_disk_that_fails_to_sync_a_checkpoint_keeps_the_old_one(tmp_path: Path, refuse) -> None:
    write_tensors(tmp_path / "a.safetensors", {"weight": torch.ones(2)}, {})
    refuse("sync a file", errno.EIO)
    with pytest.raises(CheckpointError, match=r"cannot be written .Input/output error"):
        write_tensors(tmp_path / "a.safetensors", {"weight": torch.zeros(2)}, {})
    assert read_tensors(tmp_path / "a.safetensors")["weight"].tolist() == [1, 1]


def test_one_warning_says_that_a_drive_cannot_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(handle: int) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", fail)  # neither files nor folders
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        write(tmp_path / "one.txt", "1")
    assert [str(warning.message).partition(": ")[2] for warning in caught] == [
        "this drive cannot sync a file (Invalid argument); after a power failure, new files may be incomplete or missing"
    ]


class TestStudy:
    @pytest.fixture
    def refuse_step(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], None]:
        def patch(step: str, code: int) -> None:
            def fail(*_: object, **__: object) -> None:
                raise OSError(code, os.strerror(code))

            module, name = {"sync": (os, "fsync"), "lock": (fcntl, "lockf"), "map": (drives.mmap, "mmap")}[step]
            monkeypatch.setattr(module, name, fail)

        return patch

    def open(self, path: Path) -> Store:
        return Store(path / "study.sqlite", Protocol(practice=0, counted=1), ["a.png"], {"x": ["b.png"]})

    def read_modes(self, store: Store) -> list[object]:
        connection = store._connection
        return [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]

    @pytest.mark.filterwarnings("ignore:.*this drive cannot sync")
    @pytest.mark.parametrize(
        ("missing", "modes"),
        [
            ({}, ["wal", 2]),
            ({"map": errno.ENODEV}, ["delete", 2]),
            ({"sync": errno.EINVAL}, ["wal", 0]),
            ({"sync": errno.EINVAL, "map": errno.ENODEV}, ["delete", 0]),
        ],
        ids=str,
    )
    def test_answers_are_stored_as_safely_as_the_drive_allows(
        self, missing, modes, refuse_step, tmp_path: Path
    ) -> None:
        for step, code in missing.items():
            refuse_step(step, code)
        store = self.open(tmp_path)
        assert self.read_modes(store) == modes
        assert store.next_trial(store.begin()) is not None
        store.close()

    def test_a_drive_without_locks_is_refused(self, refuse_step, tmp_path: Path) -> None:
        refuse_step("lock", errno.ENOLCK)
        with pytest.raises(
            DataError, match=r"this drive cannot lock a file \(.*\); choose --database on another drive"
        ):
            self.open(tmp_path)

    def test_a_failing_disk_is_an_error(self, refuse_step, tmp_path: Path) -> None:
        refuse_step("sync", errno.EIO)
        with pytest.raises(DataError, match="Input/output error"):
            self.open(tmp_path)


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS])
def test_a_drive_without_locks_trains_with_a_warning(code: int, refuse, tmp_path: Path) -> None:
    refuse("lock a file", code)
    with (
        pytest.warns(UserWarning, match="cannot lock a file .*; make sure that no other process"),
        RunFolder(tmp_path).lock(),
    ):
        pass


@pytest.mark.parametrize(
    ("code", "message"),
    [(errno.EACCES, "is training in this folder"), (errno.EIO, "cannot be locked .Input/output error")],
)
def test_other_failures_to_lock_are_errors(code: int, message: str, refuse, tmp_path: Path) -> None:
    """On some network drives, a lock that another process holds is refused as EACCES."""
    refuse("lock a file", code)
    with pytest.raises(CheckpointError, match=message), RunFolder(tmp_path).lock():
        pass

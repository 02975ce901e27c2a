"""Users without a home folder that can be written to: libraries keep their caches elsewhere, and every command works."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from _helpers.small import make_dataset

from gantoolkit.runtime.caches import set_cache_folders

VARIABLES = ("XDG_CACHE_HOME", "TORCH_HOME", "HF_HOME", "MPLCONFIGDIR", "TRITON_CACHE_DIR")
STRANGER = 54321
"""A user id that has no entry among the users of the system."""


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's temporary folder; no cache folder is set."""
    for name in VARIABLES:
        monkeypatch.setenv(name, "")  # restored after the test
        monkeypatch.delenv(name)
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def no_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home folder that cannot be created, not even by root."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "file" / "home"))


def moved() -> dict[str, str]:
    return {name: os.environ[name] for name in VARIABLES if name in os.environ}


def test_a_home_that_can_be_written_to_is_used(temporary: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "new" / "home"))
    set_cache_folders()
    assert not moved()
    assert not list(temporary.iterdir())


@pytest.mark.usefixtures("no_home")
def test_all_caches_move_to_a_private_folder(temporary: Path) -> None:
    set_cache_folders()
    assert list(moved()) == list(VARIABLES)
    (folder,) = temporary.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert all(Path(path).is_relative_to(folder) for path in moved().values())
    assert len(set(moved().values())) == len(VARIABLES)
    before = moved()
    set_cache_folders()
    assert moved() == before


def test_a_user_without_an_entry(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    set_cache_folders()
    assert list(moved()) == list(VARIABLES)


@pytest.mark.usefixtures("no_home")
def test_variables_that_are_set_stay(temporary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", "/somewhere")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    set_cache_folders()
    assert os.environ["TORCH_HOME"] == "/somewhere"
    assert os.environ["XDG_CACHE_HOME"] == str(tmp_path / "cache")
    assert "HF_HOME" not in os.environ  # below XDG_CACHE_HOME
    assert "TRITON_CACHE_DIR" in os.environ


def test_downloaded_weights_of_a_read_only_home_are_used(temporary: Path, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "home" / ".cache" / "torch").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    set_cache_folders()
    assert set(moved()) == {"HF_HOME", "MPLCONFIGDIR", "TRITON_CACHE_DIR"}


@pytest.mark.usefixtures("no_home")
@pytest.mark.parametrize("trap", ["link", "open", "file"])
def test_a_folder_that_others_can_write_to_is_not_used(trap: str, temporary: Path, tmp_path: Path) -> None:
    name = temporary / f"gantoolkit-cache-{os.getuid()}"
    if trap == "link":
        name.symlink_to(tmp_path)
    elif trap == "open":
        name.mkdir()
        name.chmod(0o777)
    else:
        name.touch()
    set_cache_folders()
    (folder,) = {Path(path) for path in moved().values() if Path(path).parent == temporary}
    assert folder != name
    assert folder.stat().st_mode & 0o777 == 0o700
    assert not any(Path(path).is_relative_to(name) for path in moved().values())


@pytest.mark.usefixtures("no_home", "temporary")
def test_without_a_temporary_folder_nothing_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", fail)
    set_cache_folders()
    assert not moved()


@pytest.fixture
def strangers_folder() -> Iterator[Path]:
    """A folder of a user without an entry. pytest's own folder cannot be entered by others."""
    if os.getuid() != 0:
        pytest.skip("only root can become a user that does not exist")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        os.chown(folder, STRANGER, STRANGER)
        yield folder


@pytest.mark.slow(reason="starts several processes")
@pytest.mark.parametrize("home", [None, "/", "/nonexistent"])
def test_a_run_is_trained_and_used_by_a_user_without_a_home(home: str | None, strangers_folder: Path, tiny) -> None:
    make_dataset(strangers_folder / "images")
    (strangers_folder / "tiny.toml").write_text(tiny.to_toml())
    names = ("HOME", "USER", "LOGNAME", "GANTOOLKIT_CACHE", *VARIABLES)
    environment = {name: value for name, value in os.environ.items() if name not in names}
    environment |= {"TMPDIR": str(strangers_folder)} | ({} if home is None else {"HOME": home})

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=strangers_folder,
            env=environment,
            user=STRANGER,
            group=STRANGER,
            extra_groups=[],
            capture_output=True,
            text=True,
            check=False,
        )

    try:
        run("-c", "import torch").check_returncode()
    except (OSError, subprocess.SubprocessError):
        pytest.skip(f"other users cannot run {sys.executable}")
    for arguments in (
        ["train", "tiny.toml", "--data=images", "--out=run", "--device=cpu", "--stop-at=1"],
        ["translate", "run", "images/testA", "--direction=A2B", "--out=out", "--device=cpu"],
        ["export", "run", "--direction=A2B", "--format=onnx", "--out=out/a.onnx"],
        ["card", "run"],
    ):
        result = run("-m", "gantoolkit", *arguments)
        assert result.returncode == 0, result.stderr
    assert not (strangers_folder / "~").exists()

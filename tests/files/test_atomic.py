import errno
import re
from pathlib import Path

import pytest

from gantoolkit.files.atomic import atomic_write, describe_write_error, remove_temporary_files


def test_file_appears_complete_with_the_default_mode(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    with atomic_write(tmp_path / "new" / "file.txt") as part:
        part.write_text("content")
        part.chmod(0o600)
        assert not (tmp_path / "new" / "file.txt").exists()
    assert (tmp_path / "new" / "file.txt").read_text() == "content"
    assert (tmp_path / "new" / "file.txt").stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["file.txt"]


def test_failure_keeps_the_old_file_and_no_temporary_file(tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_text("before")

    def fail() -> None:
        with atomic_write(tmp_path / "file.txt") as part:
            part.write_text("half")
            raise ValueError("half way")

    with pytest.raises(ValueError, match="half way"):
        fail()
    assert (tmp_path / "file.txt").read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]


def test_failed_check_keeps_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_text("before")

    def refuse(part: Path) -> None:
        assert part.read_text() == "after"
        raise ValueError("not this one")

    with pytest.raises(ValueError, match="not this one"), atomic_write(tmp_path / "file.txt", refuse) as part:
        part.write_text("after")
    assert (tmp_path / "file.txt").read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]


def test_temporary_files_are_removed_and_other_hidden_files_stay(tmp_path: Path) -> None:
    for name in (".step-1.part", ".lock", "my.part", "notes"):
        (tmp_path / name).touch()
    remove_temporary_files(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "my.part", "notes"]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            OSError(errno.ENOSPC, "full"),
            r"f: cannot be written \(No space left on device; it needs 2\.0 MB, and [\d.]+ MB are free\)",
        ),
        (OSError(errno.EFBIG, "large"), r"f: cannot be written \(File too large; it needs 2\.0 MB in one file.*\)"),
        (RuntimeError("I/O error: (os error 28)"), r"No space left on device; it needs 2\.0 MB, and"),
        (PermissionError(errno.EACCES, "no"), r"f: cannot be written \(Permission denied\)"),
        (RuntimeError("unknown"), r"f: cannot be written \(unknown\)"),
    ],
)
def test_failure_is_described_with_the_space_needed(error: Exception, message: str, tmp_path: Path) -> None:
    assert re.search(message, describe_write_error(tmp_path / "not yet" / "f", error, 2_000_000))

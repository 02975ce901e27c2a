import errno
import re
from pathlib import Path

import pytest

from gantoolkit.files.atomic import describe_failure, remove_leftovers, whole_file


def test_a_file_appears_whole_with_the_mode_that_new_files_have(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    with whole_file(tmp_path / "new" / "file.txt") as part:
        part.write_text("content")
        part.chmod(0o600)
        assert not (tmp_path / "new" / "file.txt").exists()
    assert (tmp_path / "new" / "file.txt").read_text() == "content"
    assert (tmp_path / "new" / "file.txt").stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["file.txt"]


def test_a_failure_leaves_what_was_there_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_text("before")

    def fail() -> None:
        with whole_file(tmp_path / "file.txt") as part:
            part.write_text("half")
            raise ValueError("half way")

    with pytest.raises(ValueError, match="half way"):
        fail()
    assert (tmp_path / "file.txt").read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]


def test_what_does_not_pass_its_check_takes_no_place(tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_text("before")

    def refuse(part: Path) -> None:
        assert part.read_text() == "after"
        raise ValueError("not this one")

    with pytest.raises(ValueError, match="not this one"), whole_file(tmp_path / "file.txt", refuse) as part:
        part.write_text("after")
    assert (tmp_path / "file.txt").read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]


def test_leftovers_go_and_other_hidden_files_stay(tmp_path: Path) -> None:
    for name in (".step-1.part", ".lock", "my.part", "notes"):
        (tmp_path / name).touch()
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "my.part", "notes"]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            OSError(errno.ENOSPC, "full"),
            r"f: cannot be written \(No space left on device; it needs 2\.0 MB, and [\d.]+ MB are free\)",
        ),
        (OSError(errno.EFBIG, "large"), r"f: cannot be written \(File too large; it needs 2\.0 MB in one file.*\)"),
        (RuntimeError("I/O error: (os error 28)"), r"No space left on device; it needs 2\.0 MB, and"),
        (PermissionError(errno.EACCES, "no"), r"f: cannot be written \(Permission denied\)"),
        (RuntimeError("unheard of"), r"f: cannot be written \(unheard of\)"),
    ],
)
def test_a_failure_is_described_with_the_room_that_it_needs(error: Exception, said: str, tmp_path: Path) -> None:
    assert re.search(said, describe_failure(tmp_path / "not yet" / "f", error, 2_000_000))

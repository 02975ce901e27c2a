"""Which files are translated: linked folders, patterns, and what is named because it is not translated."""

import shutil
import sys
from pathlib import Path

import pytest
from _helpers.small import make_files

from gantoolkit.errors import DataError
from gantoolkit.inference.sources import open_sources


def paths_and_notes(*sources: str | Path, out: Path | None = None) -> tuple[list[str], tuple[str, ...]]:
    with open_sources(sources, out=out) as files:
        return [file.relative_path.as_posix() for file in files], files.notes


def test_formats_that_are_not_read_are_named(tmp_path: Path) -> None:
    photos = make_files(tmp_path / "photos", "a.png", "b.heic", "sub/c.dng", "film.mp4", "film.wmv", "notes.txt")
    paths, notes = paths_and_notes(photos)
    assert paths == ["a.png", "film.mp4"]
    assert [note.partition(", such")[0] for note in notes] == [
        f"{photos}: 3 files are not read (.heic 1, .wmv 1, .dng 1)",
    ]
    assert paths_and_notes(f"{photos}/*.png") == (["a.png"], ())
    assert paths_and_notes(f"{photos}/*")[1][0].startswith(f"{photos}: 2 files are not read (.heic 1, .wmv 1)")
    with pytest.raises(
        DataError, match=r"\*\.heic: matches no image, video or archive; .*1 file is not read \(\.heic 1\)"
    ):
        paths_and_notes(f"{photos}/*.heic")


def test_archive_in_a_folder_is_named(tmp_path: Path) -> None:
    photos = make_files(tmp_path / "photos", "a.png", "inner/b.png", "inner/c.heic")
    archive = Path(shutil.make_archive(str(photos / "more"), "zip", photos / "inner"))
    paths, notes = paths_and_notes(photos)
    assert paths == ["a.png", "inner/b.png"]
    assert f"{archive}: an archive in a folder is not opened; translate it by its own name" in notes
    paths, notes = paths_and_notes(archive)
    assert paths == ["b.png"]
    assert notes[0].startswith(f"{archive}: 1 file is not read (.heic 1)")


@pytest.mark.skipif(sys.platform == "win32", reason="links need privileges")
class TestLinks:
    @pytest.fixture
    def photos(self, tmp_path: Path) -> Path:
        make_files(tmp_path, "photos/a.png", "store/deep/b.png")
        (tmp_path / "photos" / "more").symlink_to(tmp_path / "store")
        (tmp_path / "store" / "deep" / "back").symlink_to(tmp_path / "photos")
        return tmp_path / "photos"

    def test_linked_folders_are_followed_in_folders_and_patterns(self, photos: Path) -> None:
        for source in (photos, f"{photos}/**/*.png", f"{photos}/**"):
            paths, notes = paths_and_notes(source)
            assert (paths, notes) == (["a.png", "more/deep/b.png"], ())
        assert paths_and_notes(f"{photos}/*/deep/*") == (["more/deep/b.png"], ())

    def test_translations_in_a_linked_folder_are_no_sources(self, photos: Path, tmp_path: Path) -> None:
        make_files(tmp_path / "out", "a.png")
        (photos / "results").symlink_to(tmp_path / "out")
        assert paths_and_notes(photos, out=tmp_path / "out")[0] == ["a.png", "more/deep/b.png"]
        assert paths_and_notes(f"{photos}/**/*.png", out=tmp_path / "out")[0] == ["a.png", "more/deep/b.png"]
        assert "results/a.png" in paths_and_notes(photos)[0]

"""Files below a folder: which are images, which look like images and are not read, and which cannot be reached."""

import os
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from _helpers.small import make_files, make_image

from gantoolkit.data import find_images, listing, read_image
from gantoolkit.data.listing import list_images
from gantoolkit.data.suffixes import SUFFIXES
from gantoolkit.errors import DataError


def images_of(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in find_images(folder)]


def test_images_are_listed_recursively_and_sorted(tmp_path: Path) -> None:
    make_files(tmp_path, "b.png", "a/z.JPG", "a/y.webp", ".hidden/x.png", "notes.txt", "a/._z.png")
    assert images_of(tmp_path) == ["a/y.webp", "a/z.JPG", "b.png"]
    assert list_images(tmp_path).notes("photos") == ()


def test_missing_and_empty_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: no such folder"):
        find_images(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"contains no image; known suffixes are \.jpg"):
        find_images(tmp_path)


class TestEndings:
    @pytest.mark.parametrize(
        ("suffix", "form"),
        [
            *((suffix, "JPEG") for suffix in (".jpg", ".jpeg", ".jpe", ".jfif")),
            *((suffix, "PNG") for suffix in (".png", ".apng")),
            *((suffix, "BMP") for suffix in (".bmp", ".dib")),
            *((suffix, "PPM") for suffix in (".ppm", ".pnm", ".pgm", ".pbm")),
            *((suffix, "TIFF") for suffix in (".tif", ".tiff")),
            *((suffix, suffix[1:].upper()) for suffix in (".gif", ".webp")),
        ],
    )
    def test_every_known_suffix_can_be_read(self, suffix: str, form: str, tmp_path: Path) -> None:
        mode = {".pgm": "L", ".pbm": "1"}.get(suffix, "RGB")
        make_image(0).convert(mode).save(tmp_path / f"image{suffix.upper()}", form)
        assert suffix in SUFFIXES
        assert read_image(find_images(tmp_path)[0]).size == (40, 36)

    def test_formats_that_are_not_read_are_counted_by_ending(self, tmp_path: Path) -> None:
        unread = ("a.heic", "b.HEIC", "sub/c.avif", "d.jp2", "e.tga", "f.ico", "g.dcm", "h.nii.gz", "i.mp4", "j.pam")
        others = ("labels.txt", "meta.json", "Thumbs.db", ".DS_Store", "._a.heic", "readme", "x.csv.gz", "page.html")
        make_files(tmp_path, "good.png", *unread, *others)
        assert images_of(tmp_path) == ["good.png"]
        (note,) = list_images(tmp_path).notes("trainA")
        assert note.startswith("trainA: 10 files are not read (.heic 2, ")
        for ending in (".avif 1", ".jp2 1", ".tga 1", ".ico 1", ".dcm 1", ".nii.gz 1", ".mp4 1", ".pam 1"):
            assert ending in note
        assert note.endswith("such as a.heic; convert them to PNG or TIFF")

    def test_images_without_a_suffix_are_recognized_by_their_content(self, tmp_path: Path) -> None:
        make_files(tmp_path, "good.png", "text", "LICENSE", "data.1")
        for number, form in enumerate(("JPEG", "PNG", "GIF", "BMP", "PPM", "TIFF", "WEBP")):
            make_image(number).save(tmp_path / f"IMG_{number}", form)
        np.save(tmp_path / "array.npy", np.zeros((4, 4)))
        (tmp_path / "array.npy").rename(tmp_path / "array")
        (tmp_path / "slice").write_bytes(bytes(128) + b"DICM" + bytes(20))
        make_image(7).save(tmp_path / "1.2.840.7", "PNG")  # names of DICOM files, and of downloads, end in numbers
        (note,) = list_images(tmp_path).notes("trainA")
        assert note == (
            "trainA: 10 files are not read (no suffix 9, .7 1), such as 1.2.840.7; convert them to PNG or TIFF, and add the "
            "suffix of its format to a name without one"
        )

    def test_folder_of_unread_formats_only_is_an_error_that_names_them(self, tmp_path: Path) -> None:
        make_files(tmp_path, "a.heic", "b.heic")
        with pytest.raises(
            DataError, match=r"contains no image; 2 files are not read \(\.heic 2\), such as a\.heic; convert"
        ):
            find_images(tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="links need privileges")
class TestLinks:
    def test_linked_folders_are_followed(self, tmp_path: Path) -> None:
        make_files(tmp_path, "store/one/a.png", "store/two/deep/b.png", "set/c.png")
        (tmp_path / "set" / "one").symlink_to(tmp_path / "store" / "one")
        (tmp_path / "set" / "two").symlink_to("../store/two")
        (tmp_path / "set" / "d.png").symlink_to(tmp_path / "store" / "one" / "a.png")
        assert images_of(tmp_path / "set") == ["c.png", "d.png", "one/a.png", "two/deep/b.png"]
        assert list_images(tmp_path / "set").notes("set") == ()
        (tmp_path / "all").symlink_to(tmp_path / "store")
        assert images_of(tmp_path / "all") == ["one/a.png", "two/deep/b.png"]

    def test_loops_are_not_followed(self, tmp_path: Path) -> None:
        make_files(tmp_path, "set/x/a.png", "set/y/b.png", "outside.png")
        (tmp_path / "set" / "x" / "up").symlink_to("..")
        (tmp_path / "set" / "y" / "here").symlink_to(".")
        (tmp_path / "set" / "y" / "above").symlink_to(tmp_path)  # contains the folder that is listed
        assert images_of(tmp_path / "set") == ["x/a.png", "y/b.png"]
        (note,) = list_images(tmp_path / "set").notes("set")
        assert note == "set: y/above leads to a folder that contains set, and is not followed"

    def test_folders_that_link_to_each_other_end(self, tmp_path: Path) -> None:
        make_files(tmp_path, "set/x/a.png", "set/y/b.png")
        (tmp_path / "set" / "x" / "y").symlink_to("../y")
        (tmp_path / "set" / "y" / "x").symlink_to("../x")
        assert images_of(tmp_path / "set") == ["x/a.png", "x/y/b.png", "y/b.png", "y/x/a.png"]

    def test_links_that_lead_nowhere_and_pipes_are_named(self, tmp_path: Path) -> None:
        make_files(tmp_path, "a.png")
        (tmp_path / "b.png").symlink_to(tmp_path / "gone" / "b.png")
        (tmp_path / "folder").symlink_to(tmp_path / "gone")
        (tmp_path / "itself").symlink_to("itself")
        (tmp_path / "notes.txt").symlink_to(tmp_path / "gone.txt")
        os.mkfifo(tmp_path / "pipe.png")
        assert images_of(tmp_path) == ["a.png"]
        notes = list_images(tmp_path).notes("trainA")
        assert "trainA: b.png is a link that leads nowhere (and 1 more)" in notes
        assert "trainA: pipe.png is a pipe or a device" in notes
        assert any(note.startswith("trainA: itself cannot be accessed") for note in notes)
        assert len(notes) == 3


def test_subfolder_that_cannot_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_files(tmp_path, "open/a.png", "closed/b.png")
    scandir = os.scandir

    def refuse(path: Path) -> object:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(listing.os, "scandir", refuse)
    assert images_of(tmp_path) == ["open/a.png"]
    assert list_images(tmp_path).notes("trainA") == ("trainA: closed cannot be listed (Permission denied)",)
    with pytest.raises(DataError, match=r"closed: cannot be listed \(Permission denied\)"):
        find_images(tmp_path / "closed")


def test_depth_limits_the_levels(tmp_path: Path) -> None:
    make_files(tmp_path, "a.png", "sub/b.png", "sub/deep/c.png")
    assert len(list_images(tmp_path, depth=1).images) == 1
    assert len(list_images(tmp_path, depth=2).images) == 2


def test_order_does_not_depend_on_how_accents_are_stored(tmp_path: Path) -> None:
    names = ("e.png", "é.png", "f.png", "é/b.png", "z.png")
    orders = []
    for form in ("NFC", "NFD"):
        make_files(tmp_path / form, *(unicodedata.normalize(form, name) for name in names))
        orders.append([unicodedata.normalize("NFC", name) for name in images_of(tmp_path / form)])
    assert orders[0] == orders[1]

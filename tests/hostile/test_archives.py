"""Archives that play tricks beside those of `test_public_data.py`: nothing lands outside, nothing is left, nothing hangs."""

import bz2
import gzip
import io
import lzma
import os
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gantoolkit.data import archives
from gantoolkit.data.fetch.archives import unpack

Refused = Callable[..., str]


def tar(*members: tuple[str, bytes, dict[str, Any]], form: int = tarfile.PAX_FORMAT) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as file:
        for name, content, about in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in about.items():
                setattr(info, key, value)
            file.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def zipped(*members: tuple[str, bytes], **about: Any) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members:
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            for key, value in about.items():
                setattr(info, key, value)
            file.writestr(info, content)
    return stream.getvalue()


def renamed(content: bytes, old: bytes, new: bytes) -> bytes:
    """The same archive with other names of the same length, which the library that wrote it would have mended."""
    assert len(old) == len(new)
    assert old in content
    return content.replace(old, new)


def sparse() -> bytes:
    """An old GNU sparse file that is said to have eight terabytes, of which none is there."""
    block = bytearray(tar(("hole.jpg", b"", {}), form=tarfile.GNU_FORMAT)[:512])
    block[156:157] = b"S"
    block[483:495] = b"\x80" + (8 << 40).to_bytes(11, "big")
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + bytes(1024)


LINK = {"type": tarfile.SYMTYPE, "linkname": "/tmp"}
HARD = {"type": tarfile.LNKTYPE, "linkname": "a.jpg"}
X = b"x"

TRICKS = {
    "a link, then a file through it": tar(("d", b"", LINK), ("d/x.jpg", X, {})),
    "a file, then a hard link to it": tar(("a.jpg", X, {}), ("b.jpg", b"", HARD)),
    "a link to itself": tar(("d", b"", {**LINK, "linkname": "d"})),
    "a link whose end is deep": tar(("a/b", b"", {**LINK, "linkname": "../../../../etc/passwd"})),
    "a path of PAX that leaves": tar(("a.jpg", X, {"pax_headers": {"path": "../x.jpg"}})),
    "an absolute path of PAX": tar(("a.jpg", X, {"pax_headers": {"path": "/tmp/x.jpg"}})),
    "a long name that leaves": tar(("a/" * 100 + "../" * 101 + "x.jpg", X, {}), form=tarfile.GNU_FORMAT),
    "a size of PAX that lies": tar(("a.jpg", X, {"pax_headers": {"size": "99999999999999"}})),
    "a size of PAX that is none": tar(("a.jpg", X, {"pax_headers": {"size": "-5"}})),
    "a character device": tar(("null", b"", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3})),
    "a hole of eight terabytes": sparse(),
    "a set-uid link": tar(("s", b"", {**LINK, "mode": 0o4777})),
    "dots alone": tar(("..", X, {})),
    "a drive": tar(("C:x.jpg", X, {})),
    "a server": tar(("\\\\server\\share\\x.jpg", X, {})),
    "dots with backslashes": tar(("a\\..\\..\\x.jpg", X, {})),
    "a name of 300 letters": tar(("x" * 300, X, {})),
    "folders in folders": tar(("a/" * 1900 + "x.jpg", X, {})),
    "folders in folders, zipped": zipped(("a/" * 1900 + "x.jpg", X)),
    "a name twice, by a dot": tar(("a.jpg", X, {}), ("./a.jpg", X, {})),
    "a file as a folder": tar(("a", X, {}), ("a/b", X, {})),
    "links in a zip": zipped(("a", b"/etc"), external_attr=(stat.S_IFLNK | 0o777) << 16),
    "a pipe in a zip": zipped(("a", b""), external_attr=stat.S_IFIFO << 16),
    "a device in a zip": zipped(("a", b""), external_attr=stat.S_IFBLK << 16),
    "a socket in a zip": zipped(("a", b""), external_attr=stat.S_IFSOCK << 16),
    "a zip that leaves by its second name": renamed(zipped(("aa/aa/x.jpg", X)), b"aa/aa/x", b"a/../../"[:7]),
    "a locked zip": renamed(zipped(("a.jpg", X)), b"PK\x01\x02\x14\x03\x14\0\0\0", b"PK\x01\x02\x14\x03\x14\0\x01\0"),
    "a zip whose content is another": renamed(zipped(("a.jpg", b"y" * 999)), struct.pack("<I", 999), b"\xff\0\0\0"),
    "a way to pack that is unknown": zipped(("a.jpg", X)).replace(b"\x08\0\0\0\x21\0", b"\x63\0\0\0\x21\0"),
    "a gzip bomb": gzip.compress(tar(("b.jpg", bytes(130_000_000), {})), 9),
    "a bzip2 bomb": bz2.compress(tar(("b.jpg", bytes(130_000_000), {})), 9),
    "an xz bomb": lzma.compress(tar(("b.jpg", bytes(130_000_000), {})), preset=0),
    "bombs in a zip": zipped(*((f"{number}.jpg", bytes(30_000_000)) for number in range(5))),
    "half a gzip": gzip.compress(tar(("a.jpg", os.urandom(5000), {})))[:3000],
    "a gzip of nothing": gzip.compress(b""),
    "folders alone": tar(("a", b"", {"type": tarfile.DIRTYPE}), ("b", b"", {"type": tarfile.DIRTYPE})),
}


@pytest.fixture
def box(tmp_path: Path) -> Path:
    (tmp_path / "box").mkdir()
    return tmp_path / "box"


@pytest.mark.parametrize("trick", TRICKS)
def test_a_trick_leaves_nothing_anywhere(trick: str, refused: Refused, box: Path) -> None:
    (box / "archive").write_bytes(TRICKS[trick])
    assert "box/" in refused(unpack, box / "archive", box / "data")
    assert [path.name for path in box.iterdir()] == ["archive"]
    assert [path.name for path in box.parent.iterdir()] == ["box"]


def test_more_files_than_are_allowed(refused: Refused, box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_FILES", 100)
    (box / "archive").write_bytes(zipped(*((f"{number}.jpg", b"") for number in range(101))))
    assert "holds more than 100 files" in refused(unpack, box / "archive", box / "data")
    assert [path.name for path in box.iterdir()] == ["archive"]


def test_a_zip_with_a_tar_behind_it_is_read_as_one_of_them(box: Path) -> None:
    (box / "archive").write_bytes(tar(("tar.jpg", X, {})) + zipped(("zip.jpg", X)))
    assert unpack(box / "archive", box / "data") == 1
    assert [path.name for path in (box / "data").iterdir()] == ["zip.jpg"]


def test_what_is_unpacked_can_neither_run_nor_become_anyone(box: Path) -> None:
    about = {"mode": 0o6777, "uid": 0, "gid": 0, "uname": "root"}
    (box / "archive").write_bytes(tar(("a.jpg", X, about), ("b.jpg", X, {})))
    unpack(box / "archive", box / "data")
    assert (box / "data" / "a.jpg").stat().st_mode & 0o7111 == 0


def test_a_folder_of_leftovers_that_is_a_link(box: Path) -> None:
    """Whoever else may write beside the folder could point the unfinished one elsewhere."""
    (box / "elsewhere").mkdir()
    (box / ".data.part").symlink_to(box / "elsewhere")
    (box / "archive").write_bytes(tar(("a.jpg", X, {}), ("b.jpg", X, {})))
    with pytest.raises(archives.DataError):
        unpack(box / "archive", box / "data")
    assert not list((box / "elsewhere").iterdir())


def test_pipes_devices_and_folders(refused: Refused, box: Path, command) -> None:
    os.mkfifo(box / "pipe")
    for path in (box / "pipe", Path("/dev/zero"), box):
        assert "is no archive but a folder, a pipe or a device" in refused(unpack, path, box / "data")
    assert "is no archive but not there" in refused(unpack, box / "nothing", box / "data")
    (box / "trick").write_bytes(TRICKS["a link, then a file through it"])
    for path in (box / "pipe", box / "trick"):
        code, _, complaint = command("data", "download", "x", "--archive", path, "--out", box / "out")
        assert code == 2
        assert complaint.count("\n") == 1

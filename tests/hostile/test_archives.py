"""Hostile archives, beside those of `test_public_data.py`: no file is written outside or left behind, and nothing hangs."""

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

from gantoolkit.data.fetch import archives
from gantoolkit.data.fetch.archives import unpack

ErrorMessage = Callable[..., str]


def tar_archive(*members: tuple[str, bytes, dict[str, Any]], form: int = tarfile.PAX_FORMAT) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as file:
        for name, content, attributes in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in attributes.items():
                setattr(info, key, value)
            file.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def zip_archive(*members: tuple[str, bytes], **attributes: Any) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members:
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            for key, value in attributes.items():
                setattr(info, key, value)
            file.writestr(info, content)
    return stream.getvalue()


def patch_bytes(content: bytes, old: bytes, new: bytes) -> bytes:
    """Replace bytes by others of the same length, which the library that wrote the archive would not have written."""
    assert len(old) == len(new)
    assert old in content
    return content.replace(old, new)


def sparse() -> bytes:
    """An archive with an old GNU sparse file of eight terabytes and no data."""
    block = bytearray(tar_archive(("hole.jpg", b"", {}), form=tarfile.GNU_FORMAT)[:512])
    block[156:157] = b"S"
    block[483:495] = b"\x80" + (8 << 40).to_bytes(11, "big")
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + bytes(1024)


SYMLINK = {"type": tarfile.SYMTYPE, "linkname": "/tmp"}
HARD_LINK = {"type": tarfile.LNKTYPE, "linkname": "a.jpg"}
X = b"x"

ARCHIVES = {
    "a link, then a file through it": tar_archive(("d", b"", SYMLINK), ("d/x.jpg", X, {})),
    "a file, then a hard link to it": tar_archive(("a.jpg", X, {}), ("b.jpg", b"", HARD_LINK)),
    "a link to itself": tar_archive(("d", b"", {**SYMLINK, "linkname": "d"})),
    "a link to a path outside": tar_archive(("a/b", b"", {**SYMLINK, "linkname": "../../../../etc/passwd"})),
    "a PAX path outside": tar_archive(("a.jpg", X, {"pax_headers": {"path": "../x.jpg"}})),
    "an absolute PAX path": tar_archive(("a.jpg", X, {"pax_headers": {"path": "/tmp/x.jpg"}})),
    "a long name outside": tar_archive(("a/" * 100 + "../" * 101 + "x.jpg", X, {}), form=tarfile.GNU_FORMAT),
    "a false PAX size": tar_archive(("a.jpg", X, {"pax_headers": {"size": "99999999999999"}})),
    "a negative PAX size": tar_archive(("a.jpg", X, {"pax_headers": {"size": "-5"}})),
    "a character device": tar_archive(("null", b"", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3})),
    "a hole of eight terabytes": sparse(),
    "a set-uid link": tar_archive(("s", b"", {**SYMLINK, "mode": 0o4777})),
    "only dots": tar_archive(("..", X, {})),
    "a drive letter": tar_archive(("C:x.jpg", X, {})),
    "a network path": tar_archive(("\\\\server\\share\\x.jpg", X, {})),
    "dots with backslashes": tar_archive(("a\\..\\..\\x.jpg", X, {})),
    "a name of 300 letters": tar_archive(("x" * 300, X, {})),
    "folders in folders": tar_archive(("a/" * 1900 + "x.jpg", X, {})),
    "folders in folders of a zip": zip_archive(("a/" * 1900 + "x.jpg", X)),
    "a duplicate name with a dot": tar_archive(("a.jpg", X, {}), ("./a.jpg", X, {})),
    "a file as a folder": tar_archive(("a", X, {}), ("a/b", X, {})),
    "links in a zip": zip_archive(("a", b"/etc"), external_attr=(stat.S_IFLNK | 0o777) << 16),
    "a pipe in a zip": zip_archive(("a", b""), external_attr=stat.S_IFIFO << 16),
    "a device in a zip": zip_archive(("a", b""), external_attr=stat.S_IFBLK << 16),
    "a socket in a zip": zip_archive(("a", b""), external_attr=stat.S_IFSOCK << 16),
    "a zip with a second name outside": patch_bytes(zip_archive(("aa/aa/x.jpg", X)), b"aa/aa/x", b"a/../../"[:7]),
    "encrypted": patch_bytes(
        zip_archive(("a.jpg", X)), b"PK\x01\x02\x14\x03\x14\0\0\0", b"PK\x01\x02\x14\x03\x14\0\x01\0"
    ),
    "a zip with a false size": patch_bytes(zip_archive(("a.jpg", b"y" * 999)), struct.pack("<I", 999), b"\xff\0\0\0"),
    "an unknown compression method": zip_archive(("a.jpg", X)).replace(b"\x08\0\0\0\x21\0", b"\x63\0\0\0\x21\0"),
    "a gzip bomb": gzip.compress(tar_archive(("b.jpg", bytes(130_000_000), {})), 9),
    "a bzip2 bomb": bz2.compress(tar_archive(("b.jpg", bytes(130_000_000), {})), 9),
    "an xz bomb": lzma.compress(tar_archive(("b.jpg", bytes(130_000_000), {})), preset=0),
    "a zip bomb of several files": zip_archive(*((f"{number}.jpg", bytes(30_000_000)) for number in range(5))),
    "a truncated gzip": gzip.compress(tar_archive(("a.jpg", os.urandom(5000), {})))[:3000],
    "an empty gzip": gzip.compress(b""),
    "only folders": tar_archive(("a", b"", {"type": tarfile.DIRTYPE}), ("b", b"", {"type": tarfile.DIRTYPE})),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "folder").mkdir()
    return tmp_path / "folder"


@pytest.mark.parametrize("kind", ARCHIVES)
def test_hostile_archive_leaves_no_files(kind: str, error_message: ErrorMessage, folder: Path) -> None:
    (folder / "archive").write_bytes(ARCHIVES[kind])
    assert "folder/" in error_message(unpack, folder / "archive", folder / "data")
    assert [path.name for path in folder.iterdir()] == ["archive"]
    assert [path.name for path in folder.parent.iterdir()] == ["folder"]


def test_too_many_files(error_message: ErrorMessage, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_FILES", 100)
    (folder / "archive").write_bytes(zip_archive(*((f"{number}.jpg", b"") for number in range(101))))
    assert "contains more than 100 files" in error_message(unpack, folder / "archive", folder / "data")
    assert [path.name for path in folder.iterdir()] == ["archive"]


def test_concatenated_tar_and_zip_is_read_as_one_of_them(folder: Path) -> None:
    (folder / "archive").write_bytes(tar_archive(("tar.jpg", X, {})) + zip_archive(("zip.jpg", X)))
    assert unpack(folder / "archive", folder / "data") == 1
    assert [path.name for path in (folder / "data").iterdir()] == ["zip.jpg"]


def test_unpacked_files_are_not_executable_or_setuid(folder: Path) -> None:
    attributes = {"mode": 0o6777, "uid": 0, "gid": 0, "uname": "root"}
    (folder / "archive").write_bytes(tar_archive(("a.jpg", X, attributes), ("b.jpg", X, {})))
    unpack(folder / "archive", folder / "data")
    assert (folder / "data" / "a.jpg").stat().st_mode & 0o7111 == 0


def test_temporary_folder_that_is_a_link(folder: Path) -> None:
    """Another user who can write beside the folder could redirect the temporary folder."""
    (folder / "elsewhere").mkdir()
    (folder / ".data.part").symlink_to(folder / "elsewhere")
    (folder / "archive").write_bytes(tar_archive(("a.jpg", X, {}), ("b.jpg", X, {})))
    with pytest.raises(archives.DataError):
        unpack(folder / "archive", folder / "data")
    assert not list((folder / "elsewhere").iterdir())


def test_pipes_devices_and_folders(error_message: ErrorMessage, folder: Path, command) -> None:
    os.mkfifo(folder / "pipe")
    for path in (folder / "pipe", Path("/dev/zero"), folder):
        assert "is a folder, a pipe or a device, not an archive" in error_message(unpack, path, folder / "data")
    assert "no such file" in error_message(unpack, folder / "nothing", folder / "data")
    (folder / "hostile").write_bytes(ARCHIVES["a link, then a file through it"])
    for path in (folder / "pipe", folder / "hostile"):
        code, _, error = command("data", "download", "x", "--archive", path, "--out", folder / "out")
        assert code == 2
        assert error.count("\n") == 1

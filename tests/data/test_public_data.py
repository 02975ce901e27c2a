"""Downloads of public data sets, untrusted archives, and the commands that check, join and count images."""

import functools
import hashlib
import http.server
import io
import json
import shutil
import tarfile
import threading
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from _helpers.small import make_dataset

from gantoolkit.cli import main
from gantoolkit.data import open_dataset
from gantoolkit.data.fetch.archives import unpack
from gantoolkit.data.fetch.catalog import CATALOG, find_public_dataset
from gantoolkit.data.fetch.download import UnreachableError, download
from gantoolkit.errors import DataError
from gantoolkit.recipes import list_recipe_files


class Server(http.server.ThreadingHTTPServer):
    """Serve one file, with range requests. Tests can close the connection early or replace the file."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = b""
        self.tag = '"first"'
        self.close_after: int | None = None
        self.requests: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/horse2zebra.zip"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, byte_range = self.server, self.headers.get("Range")
        server.requests.append(byte_range)
        if "horse2zebra" not in self.path:
            self.send_error(404)
            return
        start = 0
        if byte_range and self.headers.get("If-Range") == server.tag:
            start = int(byte_range.removeprefix("bytes=").removesuffix("-"))
        if start and start >= len(server.content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(server.content)}")
            self.end_headers()
            return
        body = server.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", server.tag)
        self.end_headers()
        self.wfile.write(body[: server.close_after])

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as instance:
        thread = threading.Thread(target=functools.partial(instance.serve_forever, poll_interval=0.02))
        thread.start()
        yield instance
        instance.shutdown()
        thread.join()


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A data set as it is published: a zip file with one top-level folder."""
    folder = make_dataset(tmp_path / "pack" / "horse2zebra", count_A=2, count_B=2, test=1)
    return Path(shutil.make_archive(str(tmp_path / "horse2zebra"), "zip", folder.parent))


def test_download_command_unpacks_a_data_set(server: Server, archive: Path, tmp_path: Path, capsys) -> None:
    server.content = archive.read_bytes()
    out = tmp_path / "data"
    assert main(["data", "download", "horse2zebra", "--url", server.url, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert f"{len(server.content):,} bytes" in printed
    assert hashlib.sha256(server.content).hexdigest() in printed
    assert len(open_dataset(out / "horse2zebra").files("A")) == 2
    assert sorted(path.name for path in out.iterdir()) == ["horse2zebra"]  # no archive and no temporary files
    assert main(["data", "download", "horse2zebra", "--url", server.url, "--out", str(out)]) == 2
    assert "is there already" in capsys.readouterr().err
    assert len(server.requests) == 1


def test_broken_download_is_resumed(server: Server, tmp_path: Path) -> None:
    server.content = bytes(range(256)) * 20_000
    server.close_after = 3_000_000
    target = tmp_path / "file.zip"
    with pytest.raises(UnreachableError, match=r"[\d,]+ bytes are kept, and the same command resumes from there"):
        download(server.url, target)
    assert not target.exists()
    partial = (tmp_path / "file.zip.part").stat().st_size
    assert 0 < partial <= 3_000_000
    server.close_after = None
    progress: list[tuple[int, int | None]] = []
    done = download(server.url, target, progress=lambda *counts: progress.append(counts))
    assert server.requests == [None, f"bytes={partial}-"]
    assert done.resumed_at == partial
    assert target.read_bytes() == server.content
    assert done.sha256 == hashlib.sha256(server.content).hexdigest()
    assert progress[-1] == (len(server.content), len(server.content))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file.zip"]


def test_complete_download_that_was_killed_before_renaming(server: Server, tmp_path: Path) -> None:
    server.content = b"whole" * 1000
    (tmp_path / "file.zip.part").write_bytes(server.content)
    (tmp_path / "file.zip.part.json").write_text(json.dumps({"url": server.url, "tag": server.tag}))
    done = download(server.url, tmp_path / "file.zip", sha256=hashlib.sha256(server.content).hexdigest())
    assert done.size == done.resumed_at == 5000
    assert [path.name for path in tmp_path.iterdir()] == ["file.zip"]


def test_changed_file_is_downloaded_again(server: Server, tmp_path: Path) -> None:
    server.content, server.close_after = b"old" * 1_000_000, 2_000_000
    with pytest.raises(UnreachableError):
        download(server.url, tmp_path / "file.zip")
    server.content, server.tag, server.close_after = b"new" * 900_000, '"second"', None
    done = download(server.url, tmp_path / "file.zip")
    assert (tmp_path / "file.zip").read_bytes() == server.content
    assert done.resumed_at == 0


def test_wrong_checksum_deletes_the_download(server: Server, tmp_path: Path) -> None:
    server.content = b"something else"
    with pytest.raises(DataError, match=f"its SHA-256 is {hashlib.sha256(server.content).hexdigest()}, not 00"):
        download(server.url, tmp_path / "file.zip", sha256="00")
    assert not list(tmp_path.iterdir())
    assert download(server.url, tmp_path / "file.zip", sha256=hashlib.sha256(server.content).hexdigest().upper())


def test_missing_file_and_unreachable_server(server: Server, tmp_path: Path, capsys) -> None:
    with pytest.raises(DataError, match="the server responded with 404 Not Found"):
        download(server.url.replace("horse2zebra", "nothing"), tmp_path / "file.zip")
    nowhere = "http://127.0.0.1:9/horse2zebra.zip"
    assert main(["data", "download", "horse2zebra", "--url", nowhere, "--out", str(tmp_path / "data")]) == 2
    message = capsys.readouterr().err
    assert "connection refused" in message
    assert "gantoolkit data download horse2zebra --archive FILE" in message
    assert message.count("\n") == 1


def test_full_disk_is_detected_before_downloading(server: Server, tmp_path: Path, monkeypatch) -> None:
    server.content = b"x" * 5000
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))  # type: ignore[attr-defined]
    with pytest.raises(DataError, match="5,000 bytes are needed, 1 are free"):
        download(server.url, tmp_path / "file.zip")


def test_archive_that_was_downloaded_by_other_means(archive: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "data"
    assert main(["data", "download", "horse2zebra", "--archive", str(archive), "--out", str(out)]) == 0
    assert "look at them with: gantoolkit data check" in capsys.readouterr().out
    assert len(open_dataset(out / "horse2zebra", split="test").files("B")) == 1
    assert archive.is_file(), "the user's file was deleted"
    assert main(["data", "download", "x", "--archive", str(archive), "--sha256", "12", "--out", str(out)]) == 2
    assert main(["data", "download", "../x", "--archive", str(archive), "--out", str(out)]) == 2
    assert "is not a valid folder name" in capsys.readouterr().err


def test_invalid_requests_are_explained_in_one_sentence(archive: Path, tmp_path: Path, capsys) -> None:
    for arguments, message in (
        (["--archive", str(archive)], "say what to call it"),
        (["x", "--url", "ftp://somewhere/x.zip"], "ftp://somewhere/x.zip: is not a web address"),
        (["x", "--archive", str(tmp_path / "nothing")], "nothing: no such file"),
    ):
        assert main(["data", "download", *arguments, "--out", str(tmp_path / "data")]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    folder = str(tmp_path / "pack" / "horse2zebra" / "trainA")
    assert main(["data", "pair", folder, folder, "--out", str(tmp_path / "pairs")]) == 2
    assert "is used as A and as B" in capsys.readouterr().err


def test_names_of_public_data_sets() -> None:
    with pytest.raises(DataError, match=r"unknown public data set 'horse2zebr'\. Did you mean 'horse2zebra'"):
        find_public_dataset("horse2zebr")
    with pytest.raises(DataError, match=r"cityscapes: its license forbids redistribution: .*cityscapes-dataset\.com"):
        find_public_dataset("cityscapes")
    assert all(dataset.url.startswith("https://") for name, dataset in CATALOG.items() if name != "cityscapes")
    applications = {name for name in list_recipe_files() if not name.startswith("ablations/")} - {"demo"}
    assert applications <= set(CATALOG), "a recipe is named after a data set that is not in the catalog"


# Archives


def zip_of(*members: tuple[str, bytes], mode: int = 0) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python warns of duplicate names
        for name, content in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            file.writestr(info, content)
    return stream.getvalue()


def tar_of(*members: tuple[str, Any], kind: bytes = tarfile.REGTYPE, link: str = "", form: str = "gz") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=f"w:{form}") as file:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size = kind, link, len(content)
            file.addfile(info, io.BytesIO(content))
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (zip_of(("../outside.jpg", b"x")), "'../outside.jpg' points outside the archive"),
        (zip_of(("a/../../outside.jpg", b"x")), "points outside the archive"),
        (zip_of(("/etc/outside.jpg", b"x")), "points outside the archive"),
        (zip_of(("..\\outside.jpg", b"x")), "points outside the archive"),
        (zip_of(("C:/outside.jpg", b"x")), "points outside the archive"),
        (zip_of(("link", b"/etc/passwd"), mode=0o120777), "'link' is a link or a device"),
        (zip_of(("a.jpg", b"x"), ("a.jpg", b"y")), "contains 'a.jpg' twice"),
        (zip_of(("bomb.jpg", bytes(150_000_000))), "unpacks to more than 20 times its size"),
        (zip_of(), "contains no files"),
        (zip_of((".", b"x")), "'.' points outside the archive"),
        (zip_of(("a", b"x"), ("a/b", b"y")), "contains 'a' twice|cannot be unpacked"),
        (tar_of(("../outside.jpg", b"x")), "points outside the archive"),
        (tar_of(("/outside.jpg", b"x"), form=""), "points outside the archive"),
        (tar_of(("link", b""), kind=tarfile.SYMTYPE, link="/etc"), "'link' is a link or a device"),
        (tar_of(("link", b""), kind=tarfile.LNKTYPE, link="../x"), "'link' is a link or a device"),
        (tar_of(("disk", b""), kind=tarfile.BLKTYPE), "'disk' is a link or a device"),
        (tar_of(("pipe", b""), kind=tarfile.FIFOTYPE), "'pipe' is a link or a device"),
        (tar_of(("bomb.jpg", bytes(150_000_000))), "unpacks to more than 20 times its size"),
        (tar_of(("a.jpg", b"x" * 5000))[:60], "is damaged"),
        (zip_of(("a.jpg", b"x" * 5000))[:60], "is neither a zip nor a tar archive"),
        (b"not an archive", "is neither a zip nor a tar archive"),
        (b"", "is neither a zip nor a tar archive"),
    ],
    ids=lambda value: value if isinstance(value, str) else "archive",  # gzip stores the time of its creation
)
def test_hostile_archives_leave_nothing(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "box").mkdir()
    archive = tmp_path / "box" / "archive"
    archive.write_bytes(content)
    with pytest.raises(DataError, match=message):
        unpack(archive, tmp_path / "box" / "data")
    assert [path.name for path in (tmp_path / "box").iterdir()] == ["archive"]
    assert [path.name for path in tmp_path.iterdir()] == ["box"]


@pytest.mark.parametrize("form", ["zip", "gz", "", "bz2", "xz"])
def test_archives_of_every_common_format(form: str, tmp_path: Path) -> None:
    members = (
        ("set/trainA/1.jpg", b"one"),
        ("set/trainB/ä 2.jpg", b"two"),
        ("set/.DS_Store", b"desktop"),
        ("__MACOSX/set/trainA/._1.jpg", b"desktop"),
    )
    (tmp_path / "archive").write_bytes(zip_of(*members) if form == "zip" else tar_of(*members, form=form))
    assert unpack(tmp_path / "archive", tmp_path / "data") == 2
    assert (tmp_path / "data" / "trainA" / "1.jpg").read_bytes() == b"one"
    assert (tmp_path / "data" / "trainB" / "ä 2.jpg").read_bytes() == b"two"
    with pytest.raises(DataError, match="already exists"):
        unpack(tmp_path / "archive", tmp_path / "data")


def test_archive_without_a_top_level_folder(tmp_path: Path) -> None:
    (tmp_path / "archive").write_bytes(zip_of(("trainA/1.jpg", b"one"), ("trainB/1.jpg", b"two")))
    unpack(tmp_path / "archive", tmp_path / "data")
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["trainA", "trainB"]

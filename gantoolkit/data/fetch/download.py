"""Fetching a file over HTTP: what a broken connection left is continued, and the checksum is known at the end."""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gantoolkit.errors import DataError
from gantoolkit.files.atomic import whole_file

__all__ = ["Downloaded", "Progress", "UnreachableError", "download", "file_checksum"]

Progress = Callable[[int, int | None], None]
"""Told how many bytes are there, and of how many, if the server says so."""


class UnreachableError(DataError):
    """The server cannot be reached, or was lost on the way."""


_CHUNK = 1 << 20
_SECONDS = 30.0


@dataclass(frozen=True)
class Downloaded:
    """A file that was fetched whole.

    Args:
        path: Where it lies.
        size: Its bytes.
        sha256: Its checksum.
        resumed_at: Bytes that were there from an earlier try.
    """

    path: Path
    size: int
    sha256: str
    resumed_at: int = 0


def download(url: str, path: Path, *, sha256: str | None = None, progress: Progress | None = None) -> Downloaded:
    """Fetch `url` into `path`, or the rest of it, where an earlier try left the beginning in `<path>.part`.

    The server is asked for the rest only if its file is still the one that was begun; else it is fetched anew.

    Args:
        sha256: What the checksum has to be, if it is known.
        progress: Called now and then.

    Raises:
        DataError: When it cannot be reached, is cut off, does not fit on the disk, or has another checksum.
    """
    import requests  # imported when used: it takes a moment, and most commands need no network

    if not url.startswith(("http://", "https://")):
        raise DataError(f"{url}: is no address on the web; it begins with https://")
    part = path.with_name(f"{path.name}.part")
    note = path.with_name(f"{path.name}.part.json")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        have, known = _begun(part, note, url)
        headers = {"Accept-Encoding": "identity"}
        if have:
            headers |= {"Range": f"bytes={have}-", "If-Range": known}
        with requests.get(url, headers=headers, stream=True, timeout=_SECONDS) as response:
            if response.status_code == 416 and response.headers.get("Content-Range", "").endswith(f"/{have}"):
                return _finish(part, note, path, url, sha256, resumed_at=have)  # all of it was there already
            if response.status_code not in (200, 206):
                raise DataError(f"{url}: the server answers {response.status_code} {response.reason}")
            if response.status_code == 200:
                have = 0
            length = response.headers.get("Content-Length")
            total = have + int(length) if length and length.isdigit() else None
            _check_space(path, (total or have) - have)
            tag = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
            with whole_file(note) as half:
                half.write_text(json.dumps({"url": url, "tag": tag}), encoding="utf-8")
            size = have
            with part.open("ab" if have else "wb") as file:
                for chunk in response.iter_content(_CHUNK):
                    file.write(chunk)
                    size += len(chunk)
                    if progress:
                        progress(size, total)
    except requests.RequestException as error:
        there = part.stat().st_size if part.is_file() else 0
        again = f"; {there:,} bytes are kept, the same command goes on from there" if there else ""
        raise UnreachableError(f"{url}: cannot be fetched ({_reason(error)}){again}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror or error})") from error
    if total is not None and size != total:
        raise DataError(f"{url}: was cut off at {size:,} of {total:,} bytes; the same command goes on from there")
    return _finish(part, note, path, url, sha256, resumed_at=have)


def file_checksum(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _finish(part: Path, note: Path, path: Path, url: str, sha256: str | None, *, resumed_at: int) -> Downloaded:
    checksum = file_checksum(part)
    if sha256 is not None and checksum != sha256.lower():
        part.unlink()
        note.unlink()
        raise DataError(f"{url}: its SHA-256 is {checksum}, not {sha256}; nothing of it is kept")
    part.replace(path)
    note.unlink()
    return Downloaded(path, path.stat().st_size, checksum, resumed_at)


def _begun(part: Path, note: Path, url: str) -> tuple[int, str]:
    """Bytes that are there of this very file, and the mark by which the server knows it."""
    try:
        known = json.loads(note.read_text(encoding="utf-8"))
        if known["url"] == url and known["tag"] and not known["tag"].startswith("W/"):
            return part.stat().st_size, known["tag"]
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return 0, ""


def _check_space(path: Path, needed: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise DataError(f"{path.parent}: {needed:,} bytes are needed, {free:,} are free")


def _reason(error: Exception) -> str:
    text = str(error)
    if "NameResolutionError" in text or "Failed to resolve" in text:
        return "the name of the server cannot be resolved: no network?"
    for known in ("Connection refused", "timed out", "Network is unreachable"):
        if known in text:
            return known.lower()
    return text.partition("\n")[0] or type(error).__name__

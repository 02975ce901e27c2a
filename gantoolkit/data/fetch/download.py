"""Download files over HTTP. A broken download is resumed, and the result carries its checksum."""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gantoolkit.errors import DataError
from gantoolkit.files.atomic import atomic_write

__all__ = ["DownloadedFile", "Progress", "UnreachableError", "download", "file_checksum"]

Progress = Callable[[int, int | None], None]
"""Called with the number of bytes downloaded and the total, which is None if the server does not state it."""


class UnreachableError(DataError):
    """The server cannot be reached, or the connection was lost."""


_CHUNK = 1 << 20
_TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True)
class DownloadedFile:
    """A downloaded file.

    Args:
        path: Its path.
        size: Its size in bytes.
        sha256: Its checksum.
        resumed_at: The bytes that an earlier, interrupted download had left.
    """

    path: Path
    size: int
    sha256: str
    resumed_at: int = 0


def download(url: str, path: Path, *, sha256: str | None = None, progress: Progress | None = None) -> DownloadedFile:
    """Download `url` to `path`, or the rest of it if an earlier download left its beginning in `<path>.part`.

    A download is resumed only if the file on the server has not changed; otherwise it starts again.

    Args:
        sha256: The expected checksum.
        progress: Called after each chunk.

    Raises:
        DataError: When the server cannot be reached, the download is cut off, the disk is full, or the checksum differs.
    """
    import requests  # slow to import, and most commands do not use the network

    if not url.startswith(("http://", "https://")):
        raise DataError(f"{url}: is not a web address; a web address starts with https://")
    part = path.with_name(f"{path.name}.part")
    note = path.with_name(f"{path.name}.part.json")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        offset, tag = _find_partial(part, note, url)
        headers = {"Accept-Encoding": "identity"}
        if offset:
            headers |= {"Range": f"bytes={offset}-", "If-Range": tag}
        with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT_SECONDS) as response:
            if response.status_code == 416 and response.headers.get("Content-Range", "").endswith(f"/{offset}"):
                return _finish(part, note, path, url, sha256, resumed_at=offset)  # nothing is left to download
            if response.status_code not in (200, 206):
                raise DataError(f"{url}: the server responded with {response.status_code} {response.reason}")
            if response.status_code == 200:
                offset = 0
            length = response.headers.get("Content-Length")
            total = offset + int(length) if length and length.isdigit() else None
            _check_space(path, (total or offset) - offset)
            tag = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
            with atomic_write(note) as temporary:
                temporary.write_text(json.dumps({"url": url, "tag": tag}), encoding="utf-8")
            size = offset
            with part.open("ab" if offset else "wb") as file:
                for chunk in response.iter_content(_CHUNK):
                    file.write(chunk)
                    size += len(chunk)
                    if progress:
                        progress(size, total)
    except requests.RequestException as error:
        size = part.stat().st_size if part.is_file() else 0
        hint = f"; {size:,} bytes are kept, and the same command resumes from there" if size else ""
        raise UnreachableError(f"{url}: cannot be downloaded ({_reason(error)}){hint}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror or error})") from error
    if total is not None and size != total:
        raise DataError(f"{url}: was cut off at {size:,} of {total:,} bytes; the same command resumes from there")
    return _finish(part, note, path, url, sha256, resumed_at=offset)


def file_checksum(path: Path) -> str:
    """Compute the SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _finish(part: Path, note: Path, path: Path, url: str, sha256: str | None, *, resumed_at: int) -> DownloadedFile:
    checksum = file_checksum(part)
    if sha256 is not None and checksum != sha256.lower():
        part.unlink()
        note.unlink()
        raise DataError(f"{url}: its SHA-256 is {checksum}, not {sha256}; the download was deleted")
    part.replace(path)
    note.unlink()
    return DownloadedFile(path, path.stat().st_size, checksum, resumed_at)


def _find_partial(part: Path, note: Path, url: str) -> tuple[int, str]:
    """The size of an earlier partial download of `url`, and the tag that identifies the version of the file."""
    try:
        record = json.loads(note.read_text(encoding="utf-8"))
        if record["url"] == url and record["tag"] and not record["tag"].startswith("W/"):
            return part.stat().st_size, record["tag"]
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
        return "the name of the server cannot be resolved; is there a network connection?"
    for phrase in ("Connection refused", "timed out", "Network is unreachable"):
        if phrase in text:
            return phrase.lower()
    return text.partition("\n")[0] or type(error).__name__

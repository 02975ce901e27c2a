"""Pull repositories from the Hub: only files that a push writes, each verified first, and nothing is unpickled."""

import contextlib
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from gantoolkit.data.fetch.download import file_checksum
from gantoolkit.errors import CheckpointError, DataError, GantoolkitError, HubError
from gantoolkit.files.atomic import describe_write_error
from gantoolkit.files.drives import SET_MODE, pass_over
from gantoolkit.files.paths import user_path
from gantoolkit.files.tensors import read_tensors
from gantoolkit.hub.connection import (
    TIMEOUT_SECONDS,
    UnreachableHubError,
    connect,
    explain_errors,
    fetch_info,
    find_token,
)
from gantoolkit.hub.names import RepositoryName, is_repository_name
from gantoolkit.hub.pushing import OWN_FOLDERS
from gantoolkit.recipes import Recipe
from gantoolkit.runs import read_generator_header

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoSibling

__all__ = ["PullResult", "fetch_generator", "find_model", "pull"]

_GENERATOR = re.compile(r"generators/([A-Z]2[A-Z])\.safetensors")
_PICTURE = re.compile(r"pictures/[A-Za-z0-9_-]{1,64}\.png")
_TEXTS = ("README.md", "recipe.toml")
_DIRECTIONS = ("A2B", "B2A")
_MAX_FILES = 64
_MAX_BYTES = {"text": 1 << 20, "picture": 1 << 26, "generator": 1 << 33}
"""Maximum size of one file by kind."""


@dataclass(frozen=True)
class PullResult:
    """The result of a pull.

    Args:
        folder: The new folder, which `gantoolkit translate` and `gantoolkit show` accept like a run's folder.
        commit: The commit that was pulled.
        files: The files in the folder.
    """

    folder: Path
    commit: str
    files: tuple[str, ...]


def pull(repository: str, out: str | Path) -> PullResult:
    """Download a repository's generators, recipe, card and pictures. The folder appears only after all files are verified.

    Args:
        repository: `owner/name` or `owner/name@revision`.
        out: The folder to create; it must not exist.

    Raises:
        HubError: If the repository does not exist or cannot be reached, or contains damaged files or files that no push writes.
        DataError: If the folder exists or cannot be written.
    """
    name, out = RepositoryName.parse(repository), user_path(out)
    api = connect("pull")
    if out.exists() or out.is_symlink():
        raise DataError(f"{out}: already exists; choose another --out")
    token = find_token()
    with explain_errors(api, name, "pull"):
        info = fetch_info(api, name, token)
    files, commit = _choose_files(name, info.siblings or []), str(info.sha)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with _folder_beside(out) as folder:
            _check_space(folder, sum(file.size or 0 for file in files))
            for file in files:
                _download(api, name, commit, file, folder, token)
            shutil.rmtree(folder / ".cache", ignore_errors=True)  # metadata of huggingface_hub
            for file in files:
                _verify(name, file, folder / file.rfilename)
            folder.rename(out)
    except OSError as error:
        raise DataError(describe_write_error(out, error)) from error
    return PullResult(out, commit, tuple(file.rfilename for file in files))


def fetch_generator(repository: str, direction: str | None = None) -> Path:
    """Download and verify the file of one generator. Returns its path in huggingface_hub's cache.

    A cached file is not downloaded again, and is used without a network.

    Args:
        repository: `owner/name` or `owner/name@revision`.
        direction: `A2B` or `B2A`. Required if the repository has both.

    Raises:
        HubError: If the repository or direction does not exist, the file is damaged, or it is neither reachable nor cached.
    """
    name = RepositoryName.parse(repository)
    action = f"{name}: no such local file or folder, and not available from the Hub"
    api, token = connect(action), find_token()
    from huggingface_hub.constants import HF_HUB_CACHE  # installed: `connect` succeeded

    try:
        with explain_errors(api, name, action):
            files = fetch_info(api, name, token).siblings or []
    except UnreachableHubError:
        path = _find_in_cache(name, direction)
        if path is None:
            raise
    else:
        directions = [match[1] for file in files if (match := _GENERATOR.fullmatch(file.rfilename))]
        filename = f"generators/{_choose_direction(name, sorted(directions), direction)}.safetensors"
        (file,) = (file for file in files if file.rfilename == filename)
        _check_size(name, file)
        try:
            with explain_errors(api, name, action):
                path = Path(
                    api.hf_hub_download(
                        name.repository,
                        filename,
                        revision=name.revision,
                        etag_timeout=TIMEOUT_SECONDS,
                        token=token or False,
                    )
                )
        except OSError as error:  # the cache cannot be written
            raise HubError(f"{name}: {describe_write_error(Path(HF_HUB_CACHE), error, file.size or 0)}") from error
    try:
        read_generator_header(path)
        read_tensors(path)
    except CheckpointError as error:
        for damaged in (path.resolve(), path):  # the blob and the link to it; the cache would return them forever
            damaged.unlink(missing_ok=True)
        raise HubError(f"{name}: the downloaded file was removed: {_hide_path(error, path, path.name)}") from error
    return path


def find_model(text: str, direction: str | None = None) -> Path:
    """Resolve a text that is not a local path: the generator of a repository, as `fetch_generator`.

    Raises:
        CheckpointError: If the text is not a repository name.
        HubError: As `fetch_generator`.
    """
    if not is_repository_name(text):
        raise CheckpointError(
            f"{text}: no such file or folder, and not the name of a repository on the Hub (owner/name)"
        )
    return fetch_generator(text, direction)


def _choose_direction(name: RepositoryName, available: Sequence[str], direction: str | None) -> str:
    if not available:
        raise HubError(f"{name}: has no file such as generators/A2B.safetensors; it was not pushed by gantoolkit")
    if direction is None and len(available) > 1:
        raise HubError(f"{name}: choose --direction {' or --direction '.join(available)}")
    if direction is not None and direction not in available:
        raise HubError(f"{name}: has no generator for direction '{direction}'; available: {', '.join(available)}")
    return direction or available[0]


def _find_in_cache(name: RepositoryName, direction: str | None) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    paths = {}
    for candidate in [direction] if direction else _DIRECTIONS:
        filename = f"generators/{candidate}.safetensors"
        path = try_to_load_from_cache(name.repository, filename, revision=name.revision or "main")
        if isinstance(path, str):
            paths[candidate] = path
    return Path(paths[_choose_direction(name, sorted(paths), direction)]) if paths else None


def _choose_files(name: RepositoryName, files: Sequence["RepoSibling"]) -> list["RepoSibling"]:
    """Select the files that a push writes. Other files outside of its folders are ignored."""
    chosen = [file for file in files if file.rfilename in _TEXTS or file.rfilename.startswith(OWN_FOLDERS)]
    for file in chosen:
        if file.rfilename not in _TEXTS and not (
            _GENERATOR.fullmatch(file.rfilename) or _PICTURE.fullmatch(file.rfilename)
        ):
            raise HubError(
                f"{name}: contains {file.rfilename!r}, which gantoolkit does not push; nothing was downloaded"
            )
        _check_size(name, file)
    if len(chosen) > _MAX_FILES:
        raise HubError(
            f"{name}: contains {len(chosen)} generators and pictures, more than {_MAX_FILES}; nothing was downloaded"
        )
    if not any(_GENERATOR.fullmatch(file.rfilename) for file in chosen):
        _choose_direction(name, [], None)
    return sorted(chosen, key=lambda file: file.rfilename)


def _check_size(name: RepositoryName, file: "RepoSibling") -> None:
    limit = _MAX_BYTES[_kind(file.rfilename)]
    if (file.size or 0) > limit:
        raise HubError(
            f"{name}: {file.rfilename} has {file.size:,} bytes, more than the limit of {limit:,}; it was not downloaded"
        )


def _kind(filename: str) -> str:
    return "text" if filename in _TEXTS else "picture" if filename.endswith(".png") else "generator"


@contextlib.contextmanager
def _folder_beside(out: Path) -> Iterator[Path]:
    """A temporary folder to fill and rename to `out`. If it is not renamed, it is removed."""
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".part", dir=out.parent))
    try:
        with pass_over(SET_MODE, folder):
            folder.chmod(out.parent.stat().st_mode & 0o777)  # mkdtemp allows access to the owner only
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(f"{folder.parent}: requires {needed:,} bytes, but only {free:,} are free")


def _download(
    api: "HfApi", name: RepositoryName, commit: str, file: "RepoSibling", folder: Path, token: str | None
) -> None:
    with explain_errors(api, name, "pull"):
        api.hf_hub_download(
            name.repository,
            file.rfilename,
            revision=commit,
            local_dir=folder,
            cache_dir=folder / ".cache" / "none",  # files in the user's cache may be damaged
            etag_timeout=TIMEOUT_SECONDS,
            token=token or False,
        )


def _verify(name: RepositoryName, file: "RepoSibling", path: Path) -> None:
    """Check a file against the repository's file list, and its content against its name.

    Raises:
        HubError: If they do not match.
    """
    try:
        if path.is_symlink() or not path.is_file():
            raise HubError("is not a regular file")
        if file.size is not None and path.stat().st_size != file.size:
            raise HubError(f"has {path.stat().st_size:,} bytes instead of {file.size:,}")
        if file.lfs is not None and file_checksum(path) != file.lfs.sha256:
            raise HubError("is damaged: its SHA-256 checksum does not match")
        _verify_content(file.rfilename, path)
    except GantoolkitError as error:
        reason = _hide_path(error, path, "").lstrip(": ")
        raise HubError(f"{name}: nothing was saved: {file.rfilename} {reason}") from error


def _verify_content(filename: str, path: Path) -> None:
    if match := _GENERATOR.fullmatch(filename):
        header = read_generator_header(path)
        if header.direction != match[1]:
            raise CheckpointError(f"is a generator for direction {header.direction!r}")
        read_tensors(path)
    elif filename.endswith(".png"):
        try:
            with Image.open(path, formats=["PNG"]) as image:
                image.verify()
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise DataError("is damaged, or not a PNG file") from error
    elif filename == "recipe.toml":
        Recipe.from_toml(path)
    else:
        try:
            path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise DataError("is not UTF-8 text") from error


def _hide_path(error: GantoolkitError, path: Path, replacement: str) -> str:
    """The message of an error, without the path of a file that is removed."""
    return str(error).replace(str(path), replacement)

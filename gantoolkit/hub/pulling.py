"""A repository from the Hub: no more of it than a push writes, each file looked at before it is kept, nothing unpickled."""

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
from gantoolkit.files.atomic import describe_failure
from gantoolkit.files.tensors import read_tensors
from gantoolkit.hub.connection import SECONDS, UnreachableHubError, connect, explain, find_token, survey
from gantoolkit.hub.names import RepositoryName, is_repository_name
from gantoolkit.hub.pushing import OWN_FOLDERS
from gantoolkit.recipes import Recipe
from gantoolkit.runs import read_generator_header

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoSibling

__all__ = ["Pulled", "fetch_generator", "find_model", "pull"]

_GENERATOR = re.compile(r"generators/([A-Z]2[A-Z])\.safetensors")
_PICTURE = re.compile(r"pictures/[A-Za-z0-9_-]{1,64}\.png")
_TEXTS = ("README.md", "recipe.toml")
_DIRECTIONS = ("A2B", "B2A")
_MOST_FILES = 64
_LARGEST = {"text": 1 << 20, "picture": 1 << 26, "generator": 1 << 33}
"""Bytes of one file."""


@dataclass(frozen=True)
class Pulled:
    """What was pulled.

    Args:
        folder: Where it lies; `gantoolkit translate` and `gantoolkit show` take it as they take a run's folder.
        commit: The repository's state.
        files: What it consists of.
    """

    folder: Path
    commit: str
    files: tuple[str, ...]


def pull(repository: str, out: str | Path) -> Pulled:
    """Fetch a repository's generators, recipe, card and pictures into a new folder, which is there once all of them are whole.

    Args:
        repository: `owner/name` or `owner/name@revision`.
        out: The folder; it must not exist.

    Raises:
        HubError: When there is no such repository or no network, or it holds what no push writes, or something damaged.
        DataError: When the folder exists or cannot be written.
    """
    name, out = RepositoryName.parse(repository), Path(out)
    api = connect("pull")
    if out.exists() or out.is_symlink():
        raise DataError(f"{out}: is there already; choose another --out")
    token = find_token()
    with explain(api, name, "pull"):
        found = survey(api, name, token)
    files, commit = _choose_files(name, found.siblings or []), str(found.sha)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with _folder_beside(out) as folder:
            _check_space(folder, sum(file.size or 0 for file in files))
            for file in files:
                _fetch(api, name, commit, file, folder, token)
            shutil.rmtree(folder / ".cache", ignore_errors=True)  # notes of huggingface_hub
            for file in files:
                _examine(name, file, folder / file.rfilename)
            folder.rename(out)
    except OSError as error:
        raise DataError(describe_failure(out, error)) from error
    return Pulled(out, commit, tuple(file.rfilename for file in files))


def fetch_generator(repository: str, direction: str | None = None) -> Path:
    """The file of one generator of a repository, in huggingface_hub's cache, once it has been found whole.

    What is in the cache already is not fetched again, and without a network it is what is taken.

    Args:
        repository: `owner/name` or `owner/name@revision`.
        direction: `A2B` or `B2A`; needed where the repository has both.

    Raises:
        HubError: When there is no such repository or direction, no network and nothing in the cache, or it is damaged.
    """
    name = RepositoryName.parse(repository)
    doing = f"{name}: no such file or folder here, and not to be had from the Hub"
    api, token = connect(doing), find_token()
    from huggingface_hub.constants import HF_HUB_CACHE  # it is there: see `connect`

    try:
        with explain(api, name, doing):
            found = survey(api, name, token)
    except UnreachableHubError:
        path = _find_in_cache(name, direction)
        if path is None:
            raise
    else:
        held = [match[1] for file in found.siblings or [] if (match := _GENERATOR.fullmatch(file.rfilename))]
        filename = f"generators/{_choose_direction(name, sorted(held), direction)}.safetensors"
        (file,) = (file for file in found.siblings or [] if file.rfilename == filename)
        _refuse_large(name, file)
        try:
            with explain(api, name, doing):
                fetched = api.hf_hub_download(
                    name.repository, filename, revision=name.revision, etag_timeout=SECONDS, token=token or False
                )
        except OSError as error:  # the cache, then, cannot be written
            raise HubError(f"{name}: {describe_failure(Path(HF_HUB_CACHE), error, file.size or 0)}") from error
        path = Path(fetched)
    try:
        read_generator_header(path)
        read_tensors(path)
    except CheckpointError as error:
        for damaged in (path.resolve(), path):  # the blob, and the link to it; else it would be taken for ever
            damaged.unlink(missing_ok=True)
        raise HubError(f"{name}: what came from the Hub is not kept: {_blame(error, path, path.name)}") from error
    return path


def find_model(text: str, direction: str | None = None) -> Path:
    """What a text means that names nothing here: a repository's generator, as `fetch_generator` gives it.

    Raises:
        CheckpointError: When it cannot be a repository's name.
        HubError: As `fetch_generator`.
    """
    if not is_repository_name(text):
        raise CheckpointError(f"{text}: no such file or folder, and no repository on the Hub, whose name is owner/name")
    return fetch_generator(text, direction)


def _choose_direction(name: RepositoryName, held: Sequence[str], direction: str | None) -> str:
    if not held:
        raise HubError(f"{name}: holds no generators/A2B.safetensors or the like; it was not pushed by gantoolkit")
    if direction is None and len(held) > 1:
        raise HubError(f"{name}: say --direction {' or --direction '.join(held)}")
    if direction is not None and direction not in held:
        raise HubError(f"{name}: no generator for direction '{direction}'; there is {', '.join(held)}")
    return direction or held[0]


def _find_in_cache(name: RepositoryName, direction: str | None) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = {
        way: path
        for way in ([direction] if direction else _DIRECTIONS)
        if isinstance(
            path := try_to_load_from_cache(
                name.repository, f"generators/{way}.safetensors", revision=name.revision or "main"
            ),
            str,
        )
    }
    return Path(found[_choose_direction(name, sorted(found), direction)]) if found else None


def _choose_files(name: RepositoryName, held: Sequence["RepoSibling"]) -> list["RepoSibling"]:
    """Those that a push writes; what else a repository holds outside its folders is left there."""
    files = [file for file in held if file.rfilename in _TEXTS or file.rfilename.startswith(OWN_FOLDERS)]
    for file in files:
        if file.rfilename not in _TEXTS and not (
            _GENERATOR.fullmatch(file.rfilename) or _PICTURE.fullmatch(file.rfilename)
        ):
            raise HubError(
                f"{name}: holds {file.rfilename!r}, which gantoolkit does not push; nothing is taken from there"
            )
        _refuse_large(name, file)
    if len(files) > _MOST_FILES:
        raise HubError(f"{name}: holds {len(files)} generators and pictures, more than {_MOST_FILES}; nothing is taken")
    if not any(_GENERATOR.fullmatch(file.rfilename) for file in files):
        _choose_direction(name, [], None)
    return sorted(files, key=lambda file: file.rfilename)


def _refuse_large(name: RepositoryName, file: "RepoSibling") -> None:
    most = _LARGEST[_kind(file.rfilename)]
    if (file.size or 0) > most:
        raise HubError(f"{name}: {file.rfilename} has {file.size:,} bytes, more than {most:,}; it is not taken")


def _kind(filename: str) -> str:
    return "text" if filename in _TEXTS else "picture" if filename.endswith(".png") else "generator"


@contextlib.contextmanager
def _folder_beside(out: Path) -> Iterator[Path]:
    """A folder to fill and to rename to `out`; what is left of it is removed."""
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".part", dir=out.parent))
    try:
        folder.chmod(out.parent.stat().st_mode & 0o777)  # it is made for its owner alone
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(f"{folder.parent}: {needed:,} bytes are needed, {free:,} are free")


def _fetch(
    api: "HfApi", name: RepositoryName, commit: str, file: "RepoSibling", folder: Path, token: str | None
) -> None:
    with explain(api, name, "pull"):
        api.hf_hub_download(
            name.repository,
            file.rfilename,
            revision=commit,
            local_dir=folder,
            cache_dir=folder / ".cache" / "none",  # what lies in the user's cache may be damaged
            etag_timeout=SECONDS,
            token=token or False,
        )


def _examine(name: RepositoryName, file: "RepoSibling", path: Path) -> None:
    """See that a file is what its name and the repository's list say.

    Raises:
        HubError: When it is not.
    """
    try:
        if path.is_symlink() or not path.is_file():
            raise HubError("is no file")
        if file.size is not None and path.stat().st_size != file.size:
            raise HubError(f"has {path.stat().st_size:,} bytes, where {file.size:,} were announced")
        if file.lfs is not None and file_checksum(path) != file.lfs.sha256:
            raise HubError("is damaged: its SHA-256 is not the one that was announced")
        _examine_content(file.rfilename, path)
    except GantoolkitError as error:
        raise HubError(f"{name}: nothing is kept: {file.rfilename} {_blame(error, path, '').lstrip(': ')}") from error


def _examine_content(filename: str, path: Path) -> None:
    if match := _GENERATOR.fullmatch(filename):
        header = read_generator_header(path)
        if header.direction != match[1]:
            raise CheckpointError(f"says that it translates {header.direction!r}")
        read_tensors(path)
    elif filename.endswith(".png"):
        try:
            with Image.open(path, formats=["PNG"]) as image:
                image.verify()
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise DataError("is damaged, or no PNG") from error
    elif filename == "recipe.toml":
        Recipe.from_toml(path)
    else:
        try:
            path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise DataError("is no text in UTF-8") from error


def _blame(error: GantoolkitError, path: Path, shown: str) -> str:
    """What is wrong, without the place where nothing is any more."""
    return str(error).replace(str(path), shown)

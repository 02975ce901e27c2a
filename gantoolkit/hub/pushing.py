"""Push a run to the Hub: only its generators, recipe, card and newest samples."""

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gantoolkit.errors import CheckpointError
from gantoolkit.files.atomic import describe_write_error
from gantoolkit.files.tensors import read_header, read_tensors, write_tensors
from gantoolkit.hub.card import PICTURE, make_card
from gantoolkit.hub.connection import connect, explain_errors, fetch_info, require_token
from gantoolkit.hub.names import RepositoryName
from gantoolkit.hub.paths import shorten_paths
from gantoolkit.recipes import Recipe
from gantoolkit.run import Run

__all__ = ["OWN_FOLDERS", "PushResult", "push"]

OWN_FOLDERS = ("generators/", "pictures/")
"""Folders of a repository that a push replaces as a whole."""


@dataclass(frozen=True)
class PushResult:
    """The result of a push.

    Args:
        url: The repository's page.
        commit: The new commit, which can be pulled as `owner/name@commit`.
        files: The files that were pushed.
        shortened: Fields of the recipe with a local path, of which only the last part was pushed.
    """

    url: str
    commit: str
    files: tuple[str, ...]
    shortened: tuple[str, ...]


def push(
    run: Run,
    repository: str,
    *,
    private: bool = False,
    license: str | None = None,
    scores: Path | None = None,
    message: str = "",
) -> PushResult:
    """Push a run in one commit, and create the repository if it does not exist.

    Optimizer states, logs and the path of the data are not pushed. Generators and pictures of earlier pushes that the run does
    not have are removed; other files of the repository are kept.

    Args:
        run: The run.
        repository: `owner/name`.
        private: Whether a new repository is private. An existing one is not changed.
        license, scores: As in `gantoolkit.hub.make_card`.
        message: The commit message.

    Raises:
        HubError: If the name is invalid, the Hub cannot be reached, or there is no token with write access.
        CheckpointError: If the run has no saved generators, or a generator is damaged.
    """
    name = RepositoryName.parse(repository)
    api = connect("push")
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete  # installed: `connect` succeeded
    from huggingface_hub.errors import RepositoryNotFoundError

    token = require_token("push")
    with tempfile.TemporaryDirectory(prefix="gantoolkit-push-") as temporary:
        folder = Path(temporary)
        try:
            shortened = _collect(run, folder, repository=name.repository, license=license, scores=scores)
        except OSError as error:
            raise CheckpointError(describe_write_error(folder, error)) from error
        files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        with explain_errors(api, name, "push"):
            try:
                existing = [sibling.rfilename for sibling in fetch_info(api, name, token).siblings or []]
            except RepositoryNotFoundError:  # if it belongs to somebody else, `create_repo` raises a clear error
                existing = []
            api.create_repo(name.repository, private=private or None, exist_ok=True, token=token)
            stale = [path for path in existing if path.startswith(OWN_FOLDERS) and path not in files]
            commit = api.create_commit(
                name.repository,
                [CommitOperationDelete(path) for path in stale]
                + [CommitOperationAdd(path, folder / path) for path in files],
                commit_message=message or f"{run.recipe.name[:60]}: {', '.join(run.directions())}",
                token=token,
            )
    return PushResult(f"{api.endpoint}/{name.repository}", commit.oid, tuple(files), tuple(shortened))


def _collect(run: Run, folder: Path, *, repository: str, license: str | None, scores: Path | None) -> Sequence[str]:
    """Collect the files to push in a folder. Returns the fields of the recipe whose paths were shortened."""
    recipe, shortened = shorten_paths(run.recipe)
    card = make_card(run, repository=repository, license=license, scores=scores)
    (folder / "README.md").write_text(card.text, encoding="utf-8")
    (folder / "recipe.toml").write_text(recipe.to_toml(), encoding="utf-8")
    for direction in run.directions():
        target = folder / "generators" / f"{direction}.safetensors"
        target.parent.mkdir(exist_ok=True)
        shortened += _copy_generator(run.find_generator(direction), target)
    if card.picture is not None:
        (folder / PICTURE).parent.mkdir()
        shutil.copyfile(card.picture, folder / PICTURE)
    return list(dict.fromkeys(shortened))


def _copy_generator(source: Path, target: Path) -> list[str]:
    """Copy and verify a generator file. The copy is identical unless the recipe contains local paths."""
    shutil.copyfile(source, target)
    try:
        tensors, header = read_tensors(target), read_header(target)
    except CheckpointError as error:
        raise CheckpointError(str(error).replace(str(target), str(source))) from error
    recipe, shortened = shorten_paths(Recipe.from_toml(header["recipe"], where=str(source)))
    if shortened:
        write_tensors(target, tensors, {**header, "recipe": recipe.to_toml(), "origin": Path(header["origin"]).name})
    return shortened

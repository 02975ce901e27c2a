"""A run to the Hub: its generators, recipe, card and newest samples, and nothing else of it."""

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gantoolkit.errors import CheckpointError
from gantoolkit.files.atomic import describe_failure
from gantoolkit.files.tensors import read_header, read_tensors, write_tensors
from gantoolkit.hub.card import PICTURE, make_card
from gantoolkit.hub.connection import connect, explain, read_token, survey
from gantoolkit.hub.names import RepositoryName
from gantoolkit.hub.paths import shorten_paths
from gantoolkit.recipes import Recipe
from gantoolkit.run import Run

__all__ = ["OWN_FOLDERS", "Pushed", "push"]

OWN_FOLDERS = ("generators/", "pictures/")
"""Of a repository's folders, those that are a push's alone."""


@dataclass(frozen=True)
class Pushed:
    """What was pushed.

    Args:
        url: The repository's page.
        commit: Its new state, which can be pulled as `owner/name@commit`.
        files: What it consists of.
        shortened: Fields of the recipe that held a path of this machine, of which the last part was pushed.
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
) -> Pushed:
    """Make the repository if it is not there, and put the run there as one commit: all of it, or nothing.

    Optimizers, logs and the place of the data stay here. What an earlier push left and this one does not have is removed; the
    repository's other files stay.

    Args:
        repository: `owner/name`.
        private: Whether a repository that is made is private; one that is there stays as it is.
        license, scores: As `gantoolkit.hub.make_card`.
        message: Of the commit.

    Raises:
        HubError: When there is no token, no network, no right to write there, or no such name.
        CheckpointError: When nothing has been saved yet, or a generator is damaged.
    """
    name = RepositoryName.parse(repository)
    api = connect("push")
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete  # it is there: see `connect`
    from huggingface_hub.errors import RepositoryNotFoundError

    token = read_token("push")
    with tempfile.TemporaryDirectory(prefix="gantoolkit-push-") as made:
        folder = Path(made)
        try:
            shortened = _collect(run, folder, repository=name.repository, license=license, scores=scores)
        except OSError as error:
            raise CheckpointError(describe_failure(folder, error)) from error
        files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        with explain(api, name, "push"):
            try:
                held = [sibling.rfilename for sibling in survey(api, name, token).siblings or []]
            except RepositoryNotFoundError:  # or it is another's; the next question is answered clearly
                held = []
            api.create_repo(name.repository, private=private or None, exist_ok=True, token=token)
            stale = [path for path in held if path.startswith(OWN_FOLDERS) and path not in files]
            commit = api.create_commit(
                name.repository,
                [CommitOperationDelete(path) for path in stale]
                + [CommitOperationAdd(path, folder / path) for path in files],
                commit_message=message or f"{run.recipe.name[:60]}: {', '.join(run.directions())}",
                token=token,
            )
    return Pushed(f"{api.endpoint}/{name.repository}", commit.oid, tuple(files), tuple(shortened))


def _collect(run: Run, folder: Path, *, repository: str, license: str | None, scores: Path | None) -> Sequence[str]:
    """Put what is to be pushed into a folder: the fields whose paths were shortened."""
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
    """Copy a generator's file, bit for bit unless its recipe names paths, once it has been found whole."""
    shutil.copyfile(source, target)
    try:
        tensors, header = read_tensors(target), read_header(target)
    except CheckpointError as error:
        raise CheckpointError(str(error).replace(str(target), str(source))) from error
    recipe, shortened = shorten_paths(Recipe.from_toml(header["recipe"], where=str(source)))
    if shortened:
        write_tensors(target, tensors, {**header, "recipe": recipe.to_toml(), "origin": Path(header["origin"]).name})
    return shortened

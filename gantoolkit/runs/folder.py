"""A run's folder: where everything lies, and what is known about the run from outside."""

import contextlib
import importlib.metadata
import json
import os
import platform
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from gantoolkit.errors import CheckpointError
from gantoolkit.files.atomic import describe_failure, remove_leftovers
from gantoolkit.files.tensors import check_header, read_header, read_tensors, write_tensors
from gantoolkit.files.text import write_json, write_text
from gantoolkit.plugins import REGISTRIES
from gantoolkit.recipes import Recipe
from gantoolkit.runs.progress import check_progress

__all__ = ["Checkpoint", "RunFolder"]

_FORMAT = "gantoolkit checkpoint 2"
_NAME = re.compile(r"step-\d{8,18}\.safetensors")
_PACKAGES = ("gantoolkit", "torch", "numpy", "pillow", "safetensors")


@dataclass(frozen=True)
class Checkpoint:
    """All that a run needs to continue: tensors by path, and its progress."""

    tensors: dict[str, Tensor]
    progress: dict[str, Any]


class RunFolder:
    """The files of one run.

    `recipe.toml` holds the resolved recipe, `run.json` the data's place and the versions; `checkpoints/`, `generators/`,
    `samples/`, `log.jsonl`, `log.csv`, `tensorboard/` and `report.html` are what training leaves.

    Args:
        path: The folder; it need not exist yet.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.recipe_file = self.path / "recipe.toml"
        self.metadata_file = self.path / "run.json"
        self.checkpoints = self.path / "checkpoints"
        self.generators = self.path / "generators"
        self.best_generators = self.generators / "best"
        self.samples = self.path / "samples"
        self.log = self.path / "log.jsonl"
        self.table = self.path / "log.csv"
        self.tensorboard = self.path / "tensorboard"
        self.report = self.path / "report.html"
        self.lock_file = self.path / ".lock"

    @property
    def exists(self) -> bool:
        """Whether a run has been started here."""
        return self.recipe_file.is_file()

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes from writing here, and remove what one that was killed had begun to write.

        The lock goes with the process that holds it, however that ends: the file that stays behind means nothing. Of several
        processes that train one run together, the one that writes takes it.

        Raises:
            CheckpointError: When another process writes here, or the folder cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.lock_file, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise CheckpointError(describe_failure(self.path, error)) from error
        try:
            self._take_lock(handle)
            for folder in (self.path, self.checkpoints, self.generators, self.best_generators, self.samples):
                remove_leftovers(folder)
            yield
        finally:
            os.close(handle)

    def _take_lock(self, handle: int) -> None:
        try:
            import fcntl
        except ImportError:  # a system without such locks
            return
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(handle, 200, 0).decode(errors="replace").strip() or "another process"
            raise CheckpointError(
                f"{self.path}: {holder} trains in this folder at this moment; wait until it has ended, or stop it"
            ) from None
        except OSError:  # a file system without locks: nobody can be kept out
            return
        with contextlib.suppress(OSError):  # who holds it is not said where the disk is full
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"process {os.getpid()} on {platform.node()}\n".encode(), 0)

    def create(self, recipe: Recipe, data: Path) -> None:
        """Write the run's recipe, with every default, where its data lie now, and the versions that it is trained with.

        Raises:
            CheckpointError: When the folder cannot be written.
        """
        about = {
            "data": str(data.resolve()),
            "python": platform.python_version(),
            "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
            "plugins": _plugin_versions(),
        }
        with self.lock():
            write_json(self.metadata_file, about, CheckpointError)
            write_text(self.recipe_file, recipe.to_toml(), CheckpointError)

    def check_resumable(self, recipe: Recipe) -> None:
        """Make sure that a resolved recipe can continue the run that is here.

        It can as long as it learns the same, step by step, to the bit. What decides only how often something is written,
        shown, kept or measured, or how many files may be bad, may change: a warning says what did. Anything else is another
        run: other weights, data or losses, and also another length, which is the schedule's measure, another precision, or
        another metric, which the best checkpoint was chosen by.

        Raises:
            CheckpointError: When it is another run's; the message names each field.
        """
        text = self.recipe_file.read_text(encoding="utf-8")
        changes, rhythm = _compare(recipe, text, where=str(self.recipe_file))
        if changes:
            raise CheckpointError(
                f"{self.path}: holds a run of another recipe: {_describe(changes)}; choose another --out, "
                "or continue that run with --resume"
            )
        if rhythm:
            warnings.warn(
                f"{self.path}: {_describe(rhythm)}; nothing of what is learned depends on it, and the run goes on with "
                "what is given here",
                stacklevel=3,
            )

    def read_recipe(self) -> Recipe:
        """The run's recipe.

        Raises:
            CheckpointError: When this is no run's folder.
            RecipeError: When the recipe is damaged.
        """
        if not self.exists:
            raise CheckpointError(f"{self.path}: is no run (it holds no recipe.toml)")
        return Recipe.from_toml(self.recipe_file)

    def read_metadata(self) -> dict[str, Any]:
        """What `run.json` says.

        Raises:
            CheckpointError: When it cannot be read.
        """
        cure = "say with --data where the data set is"
        if self.metadata_file.exists() and not self.metadata_file.is_file():  # a pipe would be waited for
            raise CheckpointError(f"{self.metadata_file}: is no file; {cure}")
        try:
            about = json.loads(self.metadata_file.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise CheckpointError(f"{self.metadata_file}: cannot be read ({error}); {cure}") from error
        if not isinstance(about, dict) or not isinstance(about.get("data"), str):
            raise CheckpointError(f"{self.metadata_file}: does not say where the data set is; {cure}")
        return about

    def save_checkpoint(self, checkpoint: Checkpoint, recipe: Recipe) -> Path:
        """Write a checkpoint, then remove all but the newest `training.keep_checkpoints`, and the best if one was the best.

        Raises:
            CheckpointError: When it cannot be written, does not read as it was written, or the folder has gone; none is removed
                then.
        """
        if not self.exists:  # made anew it would hold a run that nobody started
            raise CheckpointError(f"{self.path}: has gone, or its recipe.toml has, while the run trained")
        path = self._checkpoint_file(checkpoint.progress["step"])
        header = {"format": _FORMAT, "recipe": recipe.to_toml(), "progress": checkpoint.progress}
        write_tensors(path, checkpoint.tensors, header)
        best = checkpoint.progress.get("best_step")
        # One of a later step is damaged, else the run would have gone on from there: it is none of those to keep.
        found = self.list_checkpoints()
        whole = found[: found.index(path) + 1]
        for old in whole[: -recipe.training.keep_checkpoints]:
            if best is None or old != self._checkpoint_file(best):
                old.unlink(missing_ok=True)
        return path

    def _checkpoint_file(self, step: int) -> Path:
        return self.checkpoints / f"step-{step:08d}.safetensors"

    def list_checkpoints(self) -> list[Path]:
        """All checkpoints, the oldest first; files of other names, such as somebody's copies, are none."""
        steps = {path: _NAME.fullmatch(path.name) for path in self.checkpoints.glob("step-*.safetensors")}
        return sorted((path for path, name in steps.items() if name), key=lambda path: int(path.stem[len("step-") :]))

    def newest_checkpoint(self, recipe: Recipe) -> Checkpoint | None:
        """The newest checkpoint that is whole; a damaged one is named in a warning and passed over.

        Raises:
            CheckpointError: When the newest whole one belongs to another recipe.
        """
        found = self.list_checkpoints()
        for path in reversed(found):
            try:
                header, tensors = read_header(path), read_tensors(path)
                if header.get("format") == _FORMAT:
                    check_header(path, header, {"recipe": str, "progress": dict})
                    check_progress(path, header["progress"])
                    if (step := header["progress"]["step"]) != int(path.stem[len("step-") :]):
                        raise CheckpointError(f"{path}: is one of step {step}, which its name does not say")
            except CheckpointError as error:
                instead = (
                    "there is none before it: the run begins anew"
                    if path == found[0]
                    else "the checkpoint before it is used"
                )
                warnings.warn(f"{error}; {instead}", stacklevel=2)
                continue
            if header.get("format") != _FORMAT:
                raise CheckpointError(
                    f"{path}: is a '{header.get('format')}', this gantoolkit continues a '{_FORMAT}'; train with the version "
                    f"that {self.metadata_file.name} names, or anew"
                )
            changes, _ = _compare(recipe, header["recipe"], where=str(path))
            if changes:
                raise CheckpointError(f"{path}: belongs to another recipe: {_describe(changes)}")
            return Checkpoint(tensors, header["progress"])
        return None


_Changes = dict[str, tuple[Any, Any]]
"""Fields by their path, as they are here and there."""


def _compare(recipe: Recipe, text: str, *, where: str) -> tuple[_Changes, _Changes]:
    """How a resolved recipe differs from one that was written to a file: in what is learned, and in what is not.

    Raises:
        RecipeError, PluginError: When the file's recipe cannot be understood any more.
    """
    # The same text is the same recipe, also where a class was passed that the file cannot name.
    found = {} if text == recipe.to_toml() else recipe.diff(Recipe.from_toml(text, where=where))
    rhythm = {path: values for path, values in found.items() if _has_no_effect(recipe, path)}
    return {path: values for path, values in found.items() if path not in rhythm}, rhythm


def _has_no_effect(recipe: Recipe, path: str) -> bool:
    parameter = recipe.find_parameter(path)
    return parameter is not None and parameter.effect == "none"


def _describe(changes: _Changes) -> str:
    return ", ".join(f"{path} is {here!r} here and {there!r} there" for path, (here, there) in changes.items())


def _plugin_versions() -> dict[str, str]:
    entries = [entry for registry in REGISTRIES.values() for entry in registry.entries()]
    return {entry.distribution: entry.version for entry in entries if entry.version}

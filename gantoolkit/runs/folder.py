"""The folder of a run: its files, its lock, and its checkpoints."""

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
from gantoolkit.files.atomic import describe_write_error, remove_temporary_files
from gantoolkit.files.drives import LOCK, pass_over
from gantoolkit.files.paths import user_path
from gantoolkit.files.tensors import check_header, read_header, read_tensors, write_tensors
from gantoolkit.files.text import write_json, write_text
from gantoolkit.plugins import REGISTRIES
from gantoolkit.recipes import Recipe
from gantoolkit.runs.progress import check_progress

__all__ = ["Checkpoint", "RunFolder"]

_FORMAT = "gantoolkit checkpoint 3"
_NAME = re.compile(r"step-\d{8,18}\.safetensors")
_PACKAGES = ("gantoolkit", "torch", "numpy", "pillow", "safetensors")


@dataclass(frozen=True)
class Checkpoint:
    """Everything that a run needs to resume: tensors by path, and its progress."""

    tensors: dict[str, Tensor]
    progress: dict[str, Any]


class RunFolder:
    """The files of one run.

    `recipe.toml` holds the resolved recipe, `run.json` the path of the data set and the versions. Training writes
    `checkpoints/`, `generators/`, `samples/`, `log.jsonl`, `log.csv`, `tensorboard/` and `report.html`.

    Args:
        path: The folder; it need not exist yet.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = user_path(path)
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
        """Whether a run was started here."""
        return self.recipe_file.is_file()

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes from writing here, and remove the temporary files of a killed one.

        The operating system releases the lock when its process exits; the file that remains has no meaning. In distributed
        training, the main process holds the lock.

        Raises:
            CheckpointError: When another process writes here, or the folder cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.lock_file, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise CheckpointError(describe_write_error(self.path, error)) from error
        try:
            self._take_lock(handle)
            for folder in (self.path, self.checkpoints, self.generators, self.best_generators, self.samples):
                remove_temporary_files(folder)
            yield
        finally:
            os.close(handle)

    def _take_lock(self, handle: int) -> None:
        try:
            import fcntl
        except ImportError:  # a system without these locks
            return
        try:
            with pass_over(LOCK, self.path):
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:  # on a network drive, a lock that is taken may be EACCES
            holder = os.pread(handle, 200, 0).decode(errors="replace").strip() or "another process"
            raise CheckpointError(
                f"{self.path}: {holder} is training in this folder; wait until it has exited, or stop it"
            ) from error
        except OSError as error:
            raise CheckpointError(f"{self.lock_file}: cannot be locked ({error.strerror or error})") from error
        with contextlib.suppress(OSError):  # on a full disk, the holder is not named
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"process {os.getpid()} on {platform.node()}\n".encode(), 0)

    def create(self, recipe: Recipe, data: Path) -> None:
        """Write the recipe with every default, the path of the data set, and the versions of packages.

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
        """Check that a resolved recipe can resume the run in this folder.

        It can if every step gives the same weights, bit for bit. Fields without an effect on weights may change, with a
        warning: intervals of writing, drawing and evaluating, and the number of bad files. Any other difference makes it
        another run, also its length, on which the schedule depends, its precision, and the metric that chose the best
        checkpoint.

        Raises:
            CheckpointError: When the recipe is that of another run; the message names each field.
        """
        text = self.recipe_file.read_text(encoding="utf-8")
        changes, harmless = _compare(recipe, text, where=str(self.recipe_file))
        if changes:
            raise CheckpointError(
                f"{self.path}: holds a run of another recipe: {_describe(changes)}; {self._describe_alternatives()}"
            )
        if harmless:
            warnings.warn(
                f"{self.path}: {_describe(harmless)}; weights do not depend on it, and the run continues with the new value",
                stacklevel=3,
            )

    def _describe_alternatives(self) -> str:
        """What can be done instead of continuing the run here with another recipe."""
        if not self.list_checkpoints() and not any(
            self.generators.glob("*.safetensors")
        ):  # a pulled run has no checkpoint
            return f"no step of that run was saved: remove {self.path}, or choose another --out"
        with contextlib.suppress(CheckpointError, IndexError, KeyError):
            progress = read_header(self.list_checkpoints()[-1])["progress"]
            if progress["step"] == progress["steps"]:
                return f"that run is finished at step {progress['step']}, so choose another --out for a run with these settings"
        return "choose another --out, or resume that run as it is with --resume"

    def read_recipe(self) -> Recipe:
        """The run's recipe.

        Raises:
            CheckpointError: When this is not the folder of a run.
            RecipeError: When the recipe is damaged.
        """
        if not self.exists:
            raise CheckpointError(f"{self.path}: is not a run (it has no recipe.toml)")
        return Recipe.from_toml(self.recipe_file)

    def read_metadata(self) -> dict[str, Any]:
        """The content of `run.json`.

        Raises:
            CheckpointError: When it cannot be read.
        """
        cure = "pass the path of the data set with --data"
        if self.metadata_file.exists() and not self.metadata_file.is_file():  # reading a pipe would block
            raise CheckpointError(f"{self.metadata_file}: is not a file; {cure}")
        try:
            about = json.loads(self.metadata_file.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise CheckpointError(f"{self.metadata_file}: cannot be read ({error}); {cure}") from error
        if not isinstance(about, dict) or not isinstance(about.get("data"), str):
            raise CheckpointError(f"{self.metadata_file}: does not name the data set; {cure}")
        return about

    def save_checkpoint(self, checkpoint: Checkpoint, recipe: Recipe) -> Path:
        """Write a checkpoint, then remove all but the newest `training.keep_checkpoints` and the best one.

        Raises:
            CheckpointError: When it cannot be written, does not read back as written, or the folder was deleted. No checkpoint
                is removed then.
        """
        if not self.exists:  # do not recreate a deleted folder
            raise CheckpointError(f"{self.path}: the folder, or its recipe.toml, was deleted while the run trained")
        path = self._checkpoint_file(checkpoint.progress["step"])
        header = {"format": _FORMAT, "recipe": recipe.to_toml(), "progress": checkpoint.progress}
        write_tensors(path, checkpoint.tensors, header)
        best = checkpoint.progress.get("best_step")
        # A checkpoint of a later step is damaged, otherwise the run would have resumed from it: it does not count.
        checkpoints = self.list_checkpoints()
        intact = checkpoints[: checkpoints.index(path) + 1]
        for old in intact[: -recipe.training.keep_checkpoints]:
            if best is None or old != self._checkpoint_file(best):
                old.unlink(missing_ok=True)
        return path

    def _checkpoint_file(self, step: int) -> Path:
        return self.checkpoints / f"step-{step:08d}.safetensors"

    def list_checkpoints(self) -> list[Path]:
        """All checkpoints, the oldest first; files with other names, such as copies, are ignored."""
        steps = {path: _NAME.fullmatch(path.name) for path in self.checkpoints.glob("step-*.safetensors")}
        return sorted((path for path, name in steps.items() if name), key=lambda path: int(path.stem[len("step-") :]))

    def newest_checkpoint(self, recipe: Recipe) -> Checkpoint | None:
        """The newest intact checkpoint; a damaged one is skipped with a warning.

        Raises:
            CheckpointError: When the newest intact one belongs to another recipe.
        """
        checkpoints = self.list_checkpoints()
        for path in reversed(checkpoints):
            try:
                header, tensors = read_header(path), read_tensors(path)
                if header.get("format") == _FORMAT:
                    check_header(path, header, {"recipe": str, "progress": dict})
                    check_progress(path, header["progress"])
                    if (step := header["progress"]["step"]) != int(path.stem[len("step-") :]):
                        raise CheckpointError(f"{path}: is a checkpoint of step {step}, which does not match its name")
            except CheckpointError as error:
                instead = (
                    "there is no earlier one: the run starts again from step 0"
                    if path == checkpoints[0]
                    else "the previous checkpoint is used"
                )
                warnings.warn(f"{error}; {instead}", stacklevel=2)
                continue
            if header.get("format") != _FORMAT:
                raise CheckpointError(
                    f"{path}: is a '{header.get('format')}', and this gantoolkit resumes a '{_FORMAT}'; use the version "
                    f"that {self.metadata_file.name} names, or start a new run"
                )
            changes, _ = _compare(recipe, header["recipe"], where=str(path))
            if changes:
                raise CheckpointError(f"{path}: belongs to another recipe: {_describe(changes)}")
            return Checkpoint(tensors, header["progress"])
        return None


_Changes = dict[str, tuple[Any, Any]]
"""Differing fields by path: the value in the recipe and in the file."""


def _compare(recipe: Recipe, text: str, *, where: str) -> tuple[_Changes, _Changes]:
    """The differences between a resolved recipe and one in a file: those that affect weights, and those that do not.

    Raises:
        RecipeError, PluginError: When the recipe in the file can no longer be resolved.
    """
    # Equal text is an equal recipe, even with a class that the file cannot name.
    changes = {} if text == recipe.to_toml() else recipe.diff(Recipe.from_toml(text, where=where))
    harmless = {path: values for path, values in changes.items() if _has_no_effect(recipe, path)}
    return {path: values for path, values in changes.items() if path not in harmless}, harmless


def _has_no_effect(recipe: Recipe, path: str) -> bool:
    parameter = recipe.find_parameter(path)
    return parameter is not None and parameter.effect == "none"


def _describe(changes: _Changes) -> str:
    return ", ".join(f"{path} is {new!r} here and {old!r} there" for path, (new, old) in changes.items())


def _plugin_versions() -> dict[str, str]:
    entries = [entry for registry in REGISTRIES.values() for entry in registry.entries()]
    return {entry.distribution: entry.version for entry in entries if entry.version}

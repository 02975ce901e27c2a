"""What the processes of a run must agree on, and which parts of a checkpoint belong to which process."""

import hashlib
import json
import signal
import unicodedata
from collections.abc import Iterator, Mapping, Set
from dataclasses import replace
from typing import Any

from torch import Tensor

from gantoolkit.data import Dataset, LoadedBatch
from gantoolkit.data.notes import Note
from gantoolkit.data.workers import LoadingInterruptedError
from gantoolkit.errors import DataError, RecipeError
from gantoolkit.plugins import System
from gantoolkit.recipes import Recipe
from gantoolkit.runs.folder import Checkpoint, RunFolder
from gantoolkit.training.distributed import ProcessGroup
from gantoolkit.training.interrupts import Interrupts
from gantoolkit.training.trainer import Trainer

__all__ = [
    "check_dataset",
    "check_recipe",
    "check_settings",
    "describe_dataset",
    "find_checkpoint",
    "gather_state",
    "load_together",
    "own_state",
    "pools_of",
]


def check_recipe(recipe: Recipe, system: System, process_group: ProcessGroup) -> None:
    """Check that the processes can share a run of this recipe.

    Raises:
        RecipeError: When the batch is smaller than the number of processes, or the system is not trained by gradients.
    """
    count, batch = process_group.world_size, recipe.training.batch_size
    if batch < count:
        raise RecipeError(
            f"{recipe.name}: all processes share training.batch_size = {batch}, which is too small for {count}; set it to "
            f"{count} or a multiple, or start no more processes than that"
        )
    if count > 1 and not system.phases:
        raise RecipeError(
            f"{recipe.name}: '{recipe.system.name}' is not trained by gradients, which several processes could share; train it "
            "in one process"
        )


def check_settings(recipe: Recipe, stop_at: int | None, process_group: ProcessGroup) -> None:
    """Check that all processes have the same settings.

    Raises:
        RecipeError: When they differ; the message names the settings.
    """
    own = [recipe.to_toml(), stop_at]
    first = process_group.all_gather_object(own)[0] or own
    difference = None if own == first else _describe_difference(recipe, own, first)
    if differences := [text for text in process_group.all_gather_object(difference) if text]:
        raise RecipeError(f"{recipe.name}: {differences[0]}; all processes of a run need the same settings")


def _describe_difference(recipe: Recipe, own: list[Any], first: list[Any]) -> str:
    if own[0] == first[0]:
        return f"stop_at is {own[1]} in one process and {first[1]} in the first"
    changes = recipe.diff(Recipe.from_toml(first[0], where="the first process's recipe"))
    return ", ".join(
        f"{path} is {here!r} in one process and {there!r} in the first" for path, (here, there) in changes.items()
    )


def describe_dataset(dataset: Dataset) -> str:
    """Identifies a data set: the numbers of its images, and a digest of their names in Unicode's composed form."""
    names = [[unicodedata.normalize("NFC", file.name) for file in dataset.files(domain)] for domain in "AB"]
    digest = hashlib.sha256(json.dumps(names).encode()).hexdigest()
    return f"{len(names[0])} of A, {len(names[1])} of B, {digest[:16]}"


def check_dataset(dataset: Dataset, process_group: ProcessGroup) -> None:
    """Check that all processes find the same files, which each may read from a copy of its own.

    Raises:
        DataError: When they do not.
    """
    datasets = process_group.all_gather_object(describe_dataset(dataset))
    for rank, other in enumerate(datasets):
        if other != datasets[0]:
            raise DataError(
                f"the process of rank {rank} finds other images ({other}) than the main process ({datasets[0]}; counts, and a "
                "digest of the names); all processes need the same data set"
            )


def load_together(
    batches: Iterator[LoadedBatch], interrupts: Interrupts, process_group: ProcessGroup
) -> Iterator[LoadedBatch]:
    """Batches until there are none left or any process has received a signal.

    Each has the bad files of all processes, and the notes on files that had none in the batches before.

    Raises:
        DataError: When any process finds no image for a batch.
    """
    noted: set[str] = set()
    while True:
        batch, failure = None, None
        try:
            batch = next(batches, None)
            if batch is None:
                return
        except DataError as error:
            failure = error
        except LoadingInterruptedError:  # the other processes hear of the signal below
            pass
        status = {
            "bad_files": batch.bad_files if batch else {},
            "notes": _format_notes(batch, noted) if batch else {},
            "failure": str(failure) if failure else None,
            "signal": interrupts.received.name if interrupts.received else None,
        }
        statuses = [
            other for other in process_group.all_gather_object(status if any(status.values()) else None) if other
        ]
        if failures := [other["failure"] for other in statuses if other["failure"]]:
            raise failure or DataError(failures[0])
        if signals := [other["signal"] for other in statuses if other["signal"]]:
            interrupts.receive(signal.Signals[signals[0]])
            return
        if batch is not None:
            bad_files = {path: why for other in statuses for path, why in other["bad_files"].items()}
            notes = {
                path: tuple(Note(*fields) for fields in notes)
                for other in statuses
                for path, notes in other["notes"].items()
                if path not in noted
            }
            noted |= notes.keys()
            yield replace(batch, bad_files=bad_files, notes=notes)


def _format_notes(batch: LoadedBatch, noted: Set[str]) -> dict[str, list[list[Any]]]:
    """The notes on files that are not in `noted`, as JSON holds them."""
    return {
        path: [[note.text, note.passed_over] for note in notes]
        for path, notes in batch.notes.items()
        if path not in noted
    }


def pools_of(trainer: Trainer) -> dict[str, Tensor]:
    """The state of the image pools, which differs between processes."""
    return {name: tensor for name, tensor in trainer.state_dict().items() if name.startswith("pool/")}


def gather_state(trainer: Trainer, process_group: ProcessGroup) -> dict[str, Tensor]:
    """The state of a trainer with the pools of all processes; names in the main process are those of a single process."""
    state = trainer.state_dict()
    for rank, pools in enumerate(process_group.gather(pools_of(trainer))[1:], start=1):
        state |= {f"{_prefix(rank)}{name}": tensor for name, tensor in pools.items()}
    return state


def own_state(
    state: Mapping[str, Tensor], empty_pools: Mapping[str, Tensor], process_group: ProcessGroup
) -> dict[str, Tensor]:
    """The part of a state that this process continues from; with empty pools if the saving run had fewer processes."""
    common = {name: tensor for name, tensor in state.items() if not name.startswith(("pool/", "rank/"))}
    prefix = _prefix(process_group.rank)
    pools = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(f"{prefix}pool/")}
    return common | (dict(empty_pools) if process_group.rank and not pools else pools)


def find_checkpoint(folder: RunFolder, recipe: Recipe, process_group: ProcessGroup) -> Checkpoint | None:
    """The newest checkpoint of a run, as the main process finds it.

    Raises:
        CheckpointError: As `RunFolder.newest_checkpoint`.
    """
    checkpoint = folder.newest_checkpoint(recipe) if process_group.is_main_process else None
    progress = process_group.broadcast_object(checkpoint.progress if checkpoint else {})
    if not progress:
        return None
    return Checkpoint(process_group.broadcast_tensors(checkpoint.tensors if checkpoint else {}), progress)


def _prefix(rank: int) -> str:
    return f"rank/{rank}/" if rank else ""

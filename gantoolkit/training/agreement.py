"""What the processes of one run have to agree on, and what of a checkpoint belongs to which of them."""

import hashlib
import json
import signal
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from gantoolkit.data import Dataset, LoadedBatch
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
    """Whether the processes can share a run of this recipe.

    Raises:
        RecipeError: When a step has fewer images than there are processes, or the system does not learn by gradients.
    """
    count, batch = process_group.world_size, recipe.training.batch_size
    if batch < count:
        raise RecipeError(
            f"{recipe.name}: training.batch_size = {batch} is what all processes share in a step, and {count} cannot; set it "
            f"to {count} or a multiple, or start no more than {batch}"
        )
    if count > 1 and not system.phases:
        raise RecipeError(
            f"{recipe.name}: '{recipe.system.name}' does not learn by gradients, which several processes could share; train it "
            "in one"
        )


def check_settings(recipe: Recipe, stop_at: int | None, process_group: ProcessGroup) -> None:
    """Whether all processes are to do the same.

    Raises:
        RecipeError: When they are not; the message names what differs.
    """
    own = [recipe.to_toml(), stop_at]
    first = process_group.all_gather_object(own)[0] or own
    difference = None if own == first else _describe_difference(recipe, own, first)
    if told := [note for note in process_group.all_gather_object(difference) if note]:
        raise RecipeError(f"{recipe.name}: {told[0]}; all processes of a run take the same settings")


def _describe_difference(recipe: Recipe, own: list[Any], first: list[Any]) -> str:
    if own[0] == first[0]:
        return f"stop_at is {own[1]} in one process and {first[1]} in the first"
    changes = recipe.diff(Recipe.from_toml(first[0], where="the first process's recipe"))
    return ", ".join(
        f"{path} is {here!r} in one process and {there!r} in the first" for path, (here, there) in changes.items()
    )


def describe_dataset(dataset: Dataset) -> str:
    """What tells a data set from others: how many images it has, and a digest of their names."""
    names = [[file.name for file in dataset.files(domain)] for domain in "AB"]
    digest = hashlib.sha256(json.dumps(names).encode()).hexdigest()
    return f"{len(names[0])} of A, {len(names[1])} of B, {digest[:16]}"


def check_dataset(dataset: Dataset, process_group: ProcessGroup) -> None:
    """Whether all processes see the same files, which each of them may read from elsewhere.

    Raises:
        DataError: When they do not.
    """
    seen = process_group.all_gather_object(describe_dataset(dataset))
    for number, theirs in enumerate(seen):
        if theirs != seen[0]:
            raise DataError(
                f"process {number} finds other images ({theirs}) than the first one ({seen[0]}; counts, and a digest of the "
                "names); all processes need the same data set"
            )


def load_together(
    batches: Iterator[LoadedBatch], interrupts: Interrupts, process_group: ProcessGroup
) -> Iterator[LoadedBatch]:
    """Batches until there is none left, or a signal came to any process; each knows of the bad files of all.

    Raises:
        DataError: When any process finds no image for a batch.
    """
    while True:
        batch, failure = None, None
        try:
            batch = next(batches, None)
        except DataError as error:
            failure = error
        if batch is None and failure is None:
            return
        news = {
            "bad_files": batch.bad_files if batch else {},
            "failure": str(failure) if failure else None,
            "signal": interrupts.received.name if interrupts.received else None,
        }
        told = [note for note in process_group.all_gather_object(news if any(news.values()) else None) if note]
        if failures := [note["failure"] for note in told if note["failure"]]:
            raise failure or DataError(failures[0])
        if signals := [note["signal"] for note in told if note["signal"]]:
            interrupts.receive(signal.Signals[signals[0]])
            return
        if batch is not None:
            yield replace(batch, bad_files={path: why for note in told for path, why in note["bad_files"].items()})


def pools_of(trainer: Trainer) -> dict[str, Tensor]:
    """The state of the image pools: all that is another one in each process."""
    return {name: tensor for name, tensor in trainer.state_dict().items() if name.startswith("pool/")}


def gather_state(trainer: Trainer, process_group: ProcessGroup) -> dict[str, Tensor]:
    """The state of a trainer with the pools of all processes; the first one's are named as in a run of one."""
    state = trainer.state_dict()
    for number, pools in enumerate(process_group.gather(pools_of(trainer))[1:], start=1):
        state |= {f"{_prefix(number)}{name}": tensor for name, tensor in pools.items()}
    return state


def own_state(
    state: Mapping[str, Tensor], empty_pools: Mapping[str, Tensor], process_group: ProcessGroup
) -> dict[str, Tensor]:
    """What this process continues from; with empty pools where the run that saved the state had fewer processes."""
    common = {name: tensor for name, tensor in state.items() if not name.startswith(("pool/", "rank/"))}
    prefix = _prefix(process_group.rank)
    pools = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(f"{prefix}pool/")}
    return common | (dict(empty_pools) if process_group.rank and not pools else pools)


def find_checkpoint(folder: RunFolder, recipe: Recipe, process_group: ProcessGroup) -> Checkpoint | None:
    """The newest checkpoint of a run, as the writer finds it.

    Raises:
        CheckpointError: As `RunFolder.newest_checkpoint`.
    """
    found = folder.newest_checkpoint(recipe) if process_group.is_main_process else None
    progress = process_group.broadcast_object(found.progress if found else {})
    return Checkpoint(process_group.broadcast_tensors(found.tensors if found else {}), progress) if progress else None


def _prefix(rank: int) -> str:
    return f"rank/{rank}/" if rank else ""

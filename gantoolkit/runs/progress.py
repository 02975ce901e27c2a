"""How far a run is, beyond its tensors: what its loop counts, and what a checkpoint keeps of it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gantoolkit.errors import CheckpointError
from gantoolkit.runtime.precision import Precision

__all__ = ["Progress", "check_progress"]

_Count = Annotated[int, Field(ge=0, lt=1 << 63)]
_Means = dict[str, tuple[float, _Count]]


class Progress(BaseModel):
    """What the loop of a run counts; JSON can hold it.

    Args:
        precision: What networks compute in, as it was settled when the run began.
        step: Steps that are done.
        seconds: Time spent training.
        world_size: How many share the run.
        skipped_steps: Steps of which a phase was not finite.
        bad_files: Files that could not be read, with the reason.
        flat_images: Crops of one color.
        dataset: What tells the data set from others.
        best_step: When the recipe's metric was best, if it is measured.
        best_score: What it was then; more is better.
    """

    model_config = ConfigDict(strict=True)

    precision: Precision
    step: _Count = 0
    seconds: float = 0.0
    world_size: Annotated[int, Field(ge=1)] = 1
    skipped_steps: _Count = 0
    bad_files: dict[str, str] = {}
    flat_images: _Count = 0
    dataset: str = ""
    best_step: _Count | None = None
    best_score: float | None = None


class _SavedProgress(Progress):
    """And what a checkpoint keeps beside it."""

    since_row: _Means
    since_epoch: _Means
    scheduler: dict[str, Any]


def check_progress(path: Path, progress: Mapping[str, Any]) -> None:
    """See that a run can continue from what its checkpoint says of its progress; whoever made it may have written anything.

    Raises:
        CheckpointError: At the first field that is missing or of another type.
    """
    try:
        _SavedProgress.model_validate_json(json.dumps(progress))  # as JSON, which knows no tuples
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(map(str, problem["loc"]))
        raise CheckpointError(f"{path}: is damaged: '{field}' of its progress is wrong ({problem['msg']})") from None

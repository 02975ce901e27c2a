"""The progress of a run: the counters of its loop, as checkpoints save them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gantoolkit.data.notes import describe_files
from gantoolkit.errors import CheckpointError
from gantoolkit.layers.convolution import ConvolutionAlgorithm
from gantoolkit.runtime.precision import Precision

__all__ = ["NotedFiles", "Progress", "check_progress", "describe_bad_files", "describe_notes"]

_Count = Annotated[int, Field(ge=0, lt=1 << 63)]
_Means = dict[str, tuple[float, _Count]]


class NotedFiles(BaseModel):
    """The files with a note of the same text.

    Args:
        first: The first of them.
        count: The largest number of them that a session of the run has read.
        passed_over: Whether a part of these files is not used.
    """

    model_config = ConfigDict(strict=True)

    first: str
    count: Annotated[int, Field(ge=1, lt=1 << 63)]
    passed_over: bool


class Progress(BaseModel):
    """The counters of a run's loop; JSON-serializable.

    Args:
        precision: The precision of the networks, as chosen when the run started.
        convolution: The algorithm of their 3×3 convolutions, as chosen when the run started.
        step: Steps done.
        steps: Steps of the whole run.
        seconds: Time spent training.
        world_size: Number of processes.
        skipped_steps: Steps with a non-finite phase.
        bad_files: Unreadable files, with the reason.
        notes: The files with notes, by the text of the note.
        flat_images: Crops of a single color.
        dataset: Identifies the data set.
        best_step: The step with the best metric, if it is evaluated.
        best_score: The metric at that step; more is better.
    """

    model_config = ConfigDict(strict=True)

    precision: Precision
    convolution: ConvolutionAlgorithm
    step: _Count = 0
    steps: _Count = 0
    seconds: float = 0.0
    world_size: Annotated[int, Field(ge=1)] = 1
    skipped_steps: _Count = 0
    bad_files: dict[str, str] = {}
    notes: dict[str, NotedFiles] = {}
    flat_images: _Count = 0
    dataset: str = ""
    best_step: _Count | None = None
    best_score: float | None = None


def describe_notes(notes: Mapping[str, NotedFiles]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """A sentence for each kind of note, with the first file; and those among them about files that are not used as a whole."""
    sentences = {text: describe_files(noted.first, text, noted.count) for text, noted in notes.items()}
    return tuple(sentences.values()), tuple(sentences[text] for text, noted in notes.items() if noted.passed_over)


def describe_bad_files(bad_files: Mapping[str, str]) -> tuple[str, ...]:
    """A sentence about the files that could not be used, if there are any."""
    if not bad_files:
        return ()
    path, reason = next(iter(bad_files.items()))
    more = f" (and {len(bad_files) - 1:,} more files were skipped)" if len(bad_files) > 1 else ""
    return (f"{path} was skipped: {reason}{more}",)


class _SavedProgress(Progress):
    """With the other values of a checkpoint."""

    since_row: _Means
    since_epoch: _Means
    scheduler: dict[str, Any]


def check_progress(path: Path, progress: Mapping[str, Any]) -> None:
    """Check the progress in a checkpoint, which may be damaged or untrusted.

    Raises:
        CheckpointError: For the first field that is missing or of a wrong type.
    """
    try:
        _SavedProgress.model_validate_json(json.dumps(progress))  # as JSON, which knows no tuples
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(map(str, problem["loc"]))
        raise CheckpointError(f"{path}: is damaged: '{field}' of its progress is wrong ({problem['msg']})") from None

"""What a checkpoint has to say of its run's progress; whoever made the file may have written anything."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gantoolkit.errors import CheckpointError
from gantoolkit.precision import Precision

__all__ = ["check_progress"]

_Count = Annotated[int, Field(ge=0, lt=1 << 63)]
_Means = dict[str, tuple[float, _Count]]


class _Progress(BaseModel):
    """The types; what later versions add is theirs to read."""

    model_config = ConfigDict(extra="allow", strict=True)

    precision: Precision
    step: _Count
    seconds: float = 0.0
    skipped_steps: _Count = 0
    bad_files: dict[str, str] = {}
    flat_images: _Count = 0
    best_step: _Count | None = None
    best_figure: float | None = None
    since_row: _Means
    since_epoch: _Means
    scheduler: dict[str, Any]


def check_progress(path: Path, progress: Mapping[str, Any]) -> None:
    """See that a run can continue from what its checkpoint says of its progress.

    Raises:
        CheckpointError: At the first field that is missing or of another type.
    """
    try:
        _Progress.model_validate_json(json.dumps(progress))  # as JSON, which knows no tuples
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(map(str, problem["loc"]))
        raise CheckpointError(f"{path}: is damaged: '{field}' of its progress is wrong ({problem['msg']})") from None

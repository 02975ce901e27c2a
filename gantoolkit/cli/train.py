"""`gantoolkit train`."""

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter, validators

from gantoolkit.cli.exit_codes import exit_code_of
from gantoolkit.cli.settings import parse_settings
from gantoolkit.errors import RecipeError

__all__ = ["train"]


def train(
    recipe: str | None = None,
    /,
    *,
    data: Path | None = None,
    out: Path | None = None,
    resume: Path | None = None,
    settings: Annotated[list[str] | None, Parameter(name="--set", negative=())] = None,
    device: str = "auto",
    workers: Annotated[int, Parameter(validator=validators.Number(gte=0))] = 0,
    cache: Literal["auto", "device", "file", "none"] = "auto",
    stop_at: Annotated[int | None, Parameter(validator=validators.Number(gte=0))] = None,
) -> int:
    """Train a recipe on a folder of images, or resume a run.

    The folder holds `trainA` and `trainB`, or `train/A` and `train/B`, or `train` with A and B side by side in each image.
    Samples are drawn from the test images, if there are any. If --out holds a run of this recipe, it resumes. On Ctrl-C and
    SIGTERM the run finishes its step and saves.

    What is not used of the data set is named: files that cannot be read, pages and frames, files that are not images. The exit
    code is then 3 when training ends, unless a signal ended it.

    Under `torchrun -m gantoolkit`, all processes share each batch. Passed-over files do not change the exit code there, because
    torchrun would call the process failed.

    Parameters
    ----------
    recipe
        A recipe's name (`gantoolkit recipes`) or the path of a .toml file.
    data
        Folder of the data set.
    out
        Folder of the run.
    resume
        Folder of a run to resume. Add --data only if its data set has moved.
    settings
        Change a field of the recipe, such as --set generator.blocks=6 --set data.crop_size=128. May be repeated.
    device
        cpu, cuda, cuda:1, or auto.
    workers
        Number of processes that load images. It affects only the speed. They pass images through shared memory, of which a
        container has 64 MB unless it is started with `docker run --shm-size` or `--ipc=host`.
    cache
        Where to keep decoded images; it affects only the speed. `device`: in the device's memory. `file`: in a file in the
        user's cache folder, which later runs reuse. `none`: nowhere. `auto`: on a CUDA device if they fit into a quarter of
        its free memory, else in a file.
    stop_at
        Save and stop after this step. The run can be resumed.
    """
    from gantoolkit.cli.progress import TrainingProgress
    from gantoolkit.recipes import find_recipe
    from gantoolkit.run import Run
    from gantoolkit.runtime.torchrun import launched_world_size
    from gantoolkit.training import is_main_process

    if resume is not None:
        if recipe is not None or out is not None or settings:
            raise RecipeError("--resume continues a run as it is; omit the recipe, --out and --set")
        run = Run.open(resume, data=data)
    else:
        arguments = {"a recipe": recipe, "--data": data, "--out": out}
        missing = [name for name, value in arguments.items() if value is None]
        if recipe is None or data is None or out is None:
            raise RecipeError(f"train needs {' and '.join(missing)}: gantoolkit train cyclegan --data DIR --out RUN")
        changes = parse_settings(settings)
        run = Run.start(find_recipe(recipe, changes), data, out)
    with TrainingProgress(run) if is_main_process() else nullcontext() as progress:
        callbacks = [progress] if progress is not None else []
        end = run.train(device=device, workers=workers, cache=cache, stop_at=stop_at, callbacks=callbacks)
    # A launcher calls a process with another exit code than 0 failed, and stops the others.
    return exit_code_of(end.reason, is_incomplete=bool(end.passed_over) and launched_world_size() == 1)

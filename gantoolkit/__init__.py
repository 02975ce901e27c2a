"""GAN blocks for image translation: generators, discriminators, losses and image pools that recipes compose into CycleGAN."""

import os
from typing import TYPE_CHECKING, Any

from gantoolkit.runtime.caches import set_cache_folders
from gantoolkit.runtime.threads import set_openmp_defaults
from gantoolkit.runtime.version import __version__

if TYPE_CHECKING:
    from pathlib import Path

    from gantoolkit.inference import Translator
    from gantoolkit.recipes import Recipe
    from gantoolkit.run import Run

__all__ = ["__version__", "load", "train"]

set_openmp_defaults()
set_cache_folders()


def train(recipe: "Recipe", data: "str | Path", out: "str | Path", **options: Any) -> "Run":
    """Train a recipe, or resume the run of that recipe in `out`.

    Args:
        recipe: The recipe to train.
        data: Folder of the data set, with `trainA` and `trainB`.
        out: The run's folder: recipe, checkpoints, samples, log and report.
        options: Passed to `gantoolkit.run.Run.train`: device, workers, cache, stop_at, callbacks.

    Raises:
        GantoolkitError: When the recipe, the data or the folder cannot be used.
    """
    from gantoolkit.run import Run  # imports torch

    run = Run.start(recipe, data, out)
    run.train(**options)
    return run


def load(model: "str | Path", direction: str | None = None, **options: Any) -> "Translator":
    """Load a trained generator as a function from image to image.

    Args:
        model: A generator file, a run's folder, or a repository on the Hugging Face Hub: `owner/name` or
            `owner/name@revision`. An existing path is never read as a repository.
        direction: `A2B` or `B2A`. Required if the model has both.
        options: Passed to `gantoolkit.inference.Translator.load`: device, precision, compile, tile.

    Raises:
        GantoolkitError: When the model does not exist or cannot be read.
    """
    from gantoolkit.files.paths import user_path
    from gantoolkit.run import open_translator  # imports torch

    if isinstance(model, str) and not os.path.lexists(user_path(model)):
        from gantoolkit.hub import find_model  # imports the Hub client

        model = find_model(model, direction)
    return open_translator(model, direction, **options)

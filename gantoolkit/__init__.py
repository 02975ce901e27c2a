"""GAN blocks for image translation: generators, discriminators, losses and pools that recipes compose into CycleGAN."""

import os
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from gantoolkit.inference import Translator

__all__ = ["__version__", "load"]

__version__ = version("gantoolkit")


def load(model: "str | Path", direction: str | None = None, **options: Any) -> "Translator":
    """A trained generator, as a function from image to image.

    Args:
        model: A generator's file, or a run's folder; or, as text that names nothing here, a repository on the Hugging Face Hub:
            `owner/name`, or `owner/name@revision`.
        direction: `A2B` or `B2A`; needed where there are both.
        options: As `gantoolkit.inference.Translator.load`: device, precision, compile, tile.

    Raises:
        GantoolkitError: When there is none, or it cannot be read.
    """
    from gantoolkit.run import open_translator  # torch comes with it

    if isinstance(model, str) and not os.path.lexists(model):
        from gantoolkit.hub import find_model  # and much more with this

        model = find_model(model, direction)
    return open_translator(model, direction, **options)

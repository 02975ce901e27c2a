"""What an exported file says of itself, as text that every format can carry."""

import torch

from gantoolkit import __version__
from gantoolkit.assembly import size_multiple_of
from gantoolkit.training import LoadedGenerator

__all__ = ["describe", "smallest_side_of"]

_COLOURS = {1: "grey", 3: "RGB"}


def describe(generator: LoadedGenerator, tensors: str) -> dict[str, str]:
    """Everything that somebody who has the file alone needs to use it.

    Args:
        tensors: What its weights are called by.
    """
    return {
        "format": "gantoolkit export 1",
        "direction": generator.direction,
        "layout": "NCHW",
        "dtype": "float32",
        "range": "[-1, 1]",
        "levels": "value = level / 127.5 - 1; level = round((value + 1) * 127.5), clipped to 0 ... 255",
        "in_channels": str(generator.in_channels),
        "out_channels": str(generator.out_channels),
        "in_colours": _COLOURS[generator.in_channels],
        "out_colours": _COLOURS[generator.out_channels],
        "size_multiple": str(size_multiple_of(generator.network)),
        "smallest_side": str(smallest_side_of(generator)),
        "tensors": tensors,
        "step": str(generator.step),
        "recipe": generator.recipe.to_toml(),
        "gantoolkit": __version__,
        "torch": torch.__version__,
    }


def smallest_side_of(generator: LoadedGenerator) -> int:
    """The smallest height and width that the network takes: a multiple of its `size_multiple`."""
    multiple = size_multiple_of(generator.network)
    smallest = max(getattr(generator.network, "smallest_side", multiple), multiple)
    return smallest + -smallest % multiple

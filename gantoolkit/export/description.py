"""The metadata of an exported file, as text that every format can store."""

import torch

from gantoolkit.data.encoding import Encoding
from gantoolkit.plugins import NetworkTraits, read_traits
from gantoolkit.recipes.building import size_multiple_of
from gantoolkit.runs import LoadedGenerator
from gantoolkit.runtime.version import __version__

__all__ = ["describe", "smallest_size_of"]


def describe(generator: LoadedGenerator, tensors: str) -> dict[str, str]:
    """Everything needed to use the exported file on its own.

    Args:
        tensors: How the weights are named.
    """
    return {
        "format": "gantoolkit export 1",
        "direction": generator.direction,
        "layout": "NCHW",
        "dtype": "float32",
        "range": "[-1, 1]",
        "in_channels": str(generator.source.channels),
        "out_channels": str(generator.target.channels),
        "in_images": str(generator.source),
        "out_images": str(generator.target),
        "in_values": f"network input = {_scale(generator.source)}",
        "out_values": f"network output = {_scale(generator.target)}; value is "
        + ("rounded and clipped" if generator.target.bits else "clipped"),
        "size_multiple": str(size_multiple_of(generator.network)),
        "smallest_size": str(smallest_size_of(generator)),
        "tensors": tensors,
        "step": str(generator.step),
        "recipe": generator.recipe.to_toml(),
        "gantoolkit": __version__,
        "torch": torch.__version__,
    }


def _scale(encoding: Encoding) -> str:
    low = f"(value - {encoding.low!r})" if encoding.low else "value"
    return f"{low} / {(encoding.high - encoding.low) / 2!r} - 1"


def smallest_size_of(generator: LoadedGenerator) -> int:
    """The smallest height and width that the network accepts, a multiple of its `size_multiple`."""
    multiple = size_multiple_of(generator.network)
    smallest = max(read_traits(generator.network, NetworkTraits).smallest_size, multiple)
    return smallest + -smallest % multiple

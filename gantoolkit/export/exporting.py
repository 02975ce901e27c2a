"""Export a generator for other programs: the file appears only after its output has been compared with the network's."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from gantoolkit.data.encoding import Encoding
from gantoolkit.data.images import ImageFile
from gantoolkit.errors import ExportError, GantoolkitError, first_line
from gantoolkit.export.description import describe
from gantoolkit.export.formats import FORMATS, Format
from gantoolkit.export.images import make_batches
from gantoolkit.files.atomic import atomic_write, describe_write_error
from gantoolkit.files.paths import user_path
from gantoolkit.plugins import NetworkTraits, read_traits
from gantoolkit.runs import LoadedGenerator
from gantoolkit.runtime.memory_format import bare_copy
from gantoolkit.training import run_generator

__all__ = ["TOLERANCE", "ExportResult", "export_generator"]

TOLERANCE = 1e-4
"""Allowed difference in [−1, 1]: an eightieth of an 8-bit level. Summing float32 in another order changes the output of the
default generator by 2e-5."""

_ROUNDING_FACTOR = 4
"""The network's own rounding error, times this, is allowed in addition: for a nearly flat feature map, instance norm amplifies
the rounding error of its input up to 300 times, in every implementation."""


@dataclass(frozen=True)
class ExportResult:
    """An exported file and the result of its verification.

    Args:
        difference: Largest difference between the file's translations and the network's, in [−1, 1].
        sizes: N×H×W of the batches used to verify it.
        images: The images of the batches, in words.
        reader: The program that computed the file's translations.
        tensors: How the weights are named.
        target: How files of translations encode them.
    """

    path: Path
    difference: float
    sizes: tuple[str, ...]
    images: str
    reader: str
    tensors: str
    target: Encoding

    @property
    def value_difference(self) -> float:
        """The difference in values of files, whose unit is `target.value_unit`."""
        return self.target.scale_difference(self.difference)


def export_generator(
    generator: LoadedGenerator, path: str | Path, format: Format, *, images: Sequence[str | Path | ImageFile] = ()
) -> ExportResult:
    """Write a generator for other programs, read it back, and compare its output with the network's in three sizes.

    `onnx` is one file for onnxruntime and other ONNX runtimes. `torch` is a file of torch.export (`.pt2`), which needs only
    PyTorch. Both accept any number of images, of any size whose sides are multiples of the network's `size_multiple`.
    `safetensors` contains only the weights. Each format stores a description: direction, recipe, range, channels, sizes.

    Args:
        generator: A generator on the CPU, in float32.
        path: The file to write.
        images: Files and folders; the first two images are used to verify the file. By default, synthetic images are used.

    Raises:
        ExportError: When the network cannot be exported, the file cannot be written, or its output differs from the network's;
            an existing file at `path` is left unchanged.
        DataError: When an image cannot be read.
    """
    path, file_format = user_path(path), FORMATS[format]
    _check_exportable(generator, format)
    batches, images_shown = make_batches(generator, images)
    description = describe(generator, file_format.tensors)
    differences: list[float] = []

    def verify(part: Path) -> None:
        translate, stored_description = file_format.read(generator, part)
        if stored_description != description:
            raise ExportError("the description read back from the file differs from the one written")
        for batch in batches:
            with torch.no_grad():
                output, expected = translate(batch), run_generator(generator.network, batch)
                exact = run_generator(bare_copy(generator.network).double(), batch.double())
            if output.shape != expected.shape:
                raise ExportError(f"{tuple(batch.shape)} becomes {tuple(output.shape)}, not {tuple(expected.shape)}")
            differences.append((output - expected).abs().max().item())
            tolerance = TOLERANCE + _ROUNDING_FACTOR * (expected - exact).abs().max().item()
            if not differences[-1] <= tolerance:  # also true for NaN
                raise ExportError(
                    f"the output of {file_format.reader} differs from the network's by {differences[-1]:.1e} in [-1, 1] "
                    f"on {tuple(batch.shape)}; rounding explains at most {tolerance:.1e}"
                )

    try:
        with atomic_write(path, verify) as part:
            file_format.write(generator, part, description)
    except OSError as error:
        raise ExportError(describe_write_error(path, error)) from error
    except GantoolkitError as error:
        raise ExportError(f"{path}: was not written: {error}") from error
    except Exception as error:  # exporters raise errors of many types
        raise ExportError(f"{path}: was not written: {type(error).__name__}: {first_line(error)}") from error
    sizes = tuple("×".join(map(str, (len(batch), *batch.shape[-2:]))) for batch in batches)
    return ExportResult(
        path, max(differences), sizes, images_shown, file_format.reader, file_format.tensors, generator.target
    )


def _check_exportable(generator: LoadedGenerator, format: Format) -> None:
    network, name = generator.network, type(generator.network).__name__
    traits = read_traits(network, NetworkTraits)
    if traits.optimizes:
        raise ExportError(
            f"{name} translates by optimizing each image, which cannot be exported; use gantoolkit translate"
        )
    if FORMATS[format].is_graph and traits.stochastic:
        raise ExportError(
            f"{name} draws random numbers when it translates, or depends on the whole batch, which {format} cannot "
            "reproduce; export its weights as safetensors, or train with generator.noise_at_test=false"
        )
    if generator.precision != "fp32" or any(tensor.device.type != "cpu" for tensor in network.state_dict().values()):
        raise ExportError(
            "a generator must be on the CPU in float32 to be exported; load it with device='cpu', precision='fp32'"
        )

"""Writing a generator for other programs: the file gets its name only once it has computed what the network computes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from gantoolkit.data.images import ImageFile
from gantoolkit.errors import ExportError, GantoolkitError
from gantoolkit.export.description import describe
from gantoolkit.export.formats import FORMATS, Format
from gantoolkit.export.images import make_batches
from gantoolkit.files.atomic import describe_failure, whole_file
from gantoolkit.plugins import NetworkTraits, read_traits
from gantoolkit.runs import LoadedGenerator
from gantoolkit.runtime.memory_format import bare_copy
from gantoolkit.training import run_generator

__all__ = ["TOLERANCE", "Exported", "export_generator"]

TOLERANCE = 1e-4
"""In [−1, 1]: an eightieth of an 8-bit level. Sums of float32 in another order come to 2e-5 with the default generator."""

_ROUNDINGS = 4
"""Of the network's own rounding, how much more is allowed: where a feature map is nearly flat, instance norm enlarges the
rounding of what it is given up to 300 times, in every implementation."""


@dataclass(frozen=True)
class Exported:
    """A file that was written, and how it was found right.

    Args:
        difference: The largest between the file's translations and the network's, in [−1, 1].
        sizes: N×H×W of the batches on which it was tried.
        images: What they showed.
        reader: What computed.
        tensors: What the weights are called by.
    """

    path: Path
    difference: float
    sizes: tuple[str, ...]
    images: str
    reader: str
    tensors: str

    @property
    def levels(self) -> float:
        """The same difference in 8-bit levels."""
        return self.difference * 127.5


def export_generator(
    generator: LoadedGenerator, path: str | Path, format: Format, *, images: Sequence[str | Path | ImageFile] = ()
) -> Exported:
    """Write a generator for other programs, read it back, and compare it with the network in three sizes.

    `onnx` is one file for onnxruntime and its like; `torch` is one of torch.export (`.pt2`), which needs PyTorch alone; both
    take any number of images, of any sides that are multiples of the network's. `safetensors` holds weights alone. Each
    carries a description: direction, recipe, range, channels, sizes.

    Args:
        generator: On the CPU, in float32.
        path: The file to write.
        images: Files and folders; the first two images are what it is tried on. With none, pictures are made.

    Raises:
        ExportError: When the network cannot be exported, the file cannot be written, or it computes something else; what was
            at `path` stays.
        DataError: When an image cannot be read.
    """
    path, kind = Path(path), FORMATS[format]
    _refuse(generator, format)
    batches, shown = make_batches(generator, images)
    description = describe(generator, kind.tensors)
    differences: list[float] = []

    def verify(part: Path) -> None:
        translate, found = kind.read(generator, part)
        if found != description:
            raise ExportError("the file does not give its description back")
        for batch in batches:
            with torch.no_grad():
                made, wanted = translate(batch), run_generator(generator.network, batch)
                exact = run_generator(bare_copy(generator.network).double(), batch.double())
            if made.shape != wanted.shape:
                raise ExportError(f"{tuple(batch.shape)} becomes {tuple(made.shape)}, not {tuple(wanted.shape)}")
            differences.append((made - wanted).abs().max().item())
            allowed = TOLERANCE + _ROUNDINGS * (wanted - exact).abs().max().item()
            if not differences[-1] <= allowed:  # so that NaN fails
                raise ExportError(
                    f"{kind.reader} computes something else than the network: they differ by {differences[-1]:.1e} in "
                    f"[-1, 1] on {tuple(batch.shape)}, and at most {allowed:.1e} is rounding"
                )

    try:
        with whole_file(path, verify) as part:
            kind.write(generator, part, description)
    except OSError as error:
        raise ExportError(describe_failure(path, error)) from error
    except GantoolkitError as error:
        raise ExportError(f"{path}: was not written: {error}") from error
    except Exception as error:  # an exporter raises whatever its dozens of passes do
        reason = str(error).strip().partition("\n")[0]
        raise ExportError(f"{path}: was not written: {type(error).__name__}: {reason}") from error
    sizes = tuple("×".join(map(str, (len(batch), *batch.shape[-2:]))) for batch in batches)
    return Exported(path, max(differences), sizes, shown, kind.reader, kind.tensors)


def _refuse(generator: LoadedGenerator, format: Format) -> None:
    network, name = generator.network, type(generator.network).__name__
    traits = read_traits(network, NetworkTraits)
    if traits.optimizes:
        raise ExportError(
            f"{name} translates by optimizing each image, which no file can hold; use gantoolkit translate"
        )
    if FORMATS[format].is_graph and traits.stochastic:
        raise ExportError(
            f"{name} draws random numbers when it translates, or looks at the whole batch, which {format} cannot repeat; "
            "safetensors holds its weights, and one trained with generator.noise_at_test=false can be exported"
        )
    if generator.precision != "fp32" or any(tensor.device.type != "cpu" for tensor in network.state_dict().values()):
        raise ExportError(
            "a generator is exported from the CPU in float32: load it with device='cpu', precision='fp32'"
        )

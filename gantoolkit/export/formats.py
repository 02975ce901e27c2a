"""The export formats: how each is written, and how it is read back, by another program where there is one."""

import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from gantoolkit.errors import ExportError, requires_extra
from gantoolkit.export.description import smallest_size_of
from gantoolkit.export.images import smooth_images
from gantoolkit.recipes.building import build_system, size_multiple_of
from gantoolkit.runs import LoadedGenerator
from gantoolkit.training import run_generator

__all__ = ["FORMATS", "METADATA_FILE", "FileFormat", "Format"]

Format = Literal["onnx", "torch", "safetensors"]

METADATA_FILE = "gantoolkit.json"
"""The file with the description within a file of torch.export."""

_OPSET = 18
"""The lowest opset that torch's exporter writes without conversion, and thus supported by most programs."""

_LARGEST_MESSAGE = 2**31
"""Size limit in bytes of a protocol buffer, and so of an ONNX file; larger models would need a second file."""

_INPUT, _OUTPUT = "images", "translation"


@dataclass(frozen=True)
class FileFormat:
    """How to write a generator and its description to a path, and read it back as a function.

    Args:
        reader: The program that runs the file when it is read back.
        tensors: How the weights are named.
        is_graph: Whether the file contains the computation, and not only the weights.
    """

    reader: str
    tensors: str
    is_graph: bool
    write: Callable[[LoadedGenerator, Path, Mapping[str, str]], None]
    read: Callable[[LoadedGenerator, Path], tuple[Callable[[Tensor], Tensor], dict[str, str]]]


def _write_onnx(generator: LoadedGenerator, path: Path, description: Mapping[str, str]) -> None:
    onnx = _import_for_onnx()[0]
    size = sum(tensor.nbytes for tensor in generator.network.state_dict().values())
    if size >= _LARGEST_MESSAGE:
        raise ExportError(
            f"its weights take {size / 1e9:.1f} GB, and an ONNX file is limited to 2.1 GB; use the format torch"
        )
    program = _trace(generator)
    with _quiet_exporter():
        onnx_program = torch.onnx.export(
            program, input_names=[_INPUT], output_names=[_OUTPUT], opset_version=_OPSET, dynamo=True, verbose=False
        )
    if onnx_program is None:
        raise ExportError("torch.onnx returned no model")
    model: Any = onnx_program.model_proto
    names = _dimension_names(size_multiple_of(generator.network))
    for value in (*model.graph.input, *model.graph.output):
        for axis, dimension in enumerate(value.type.tensor_type.shape.dim):
            if axis in names:
                dimension.dim_param = names[axis]
    del model.graph.value_info[:]  # intermediate shapes, with the exporter's names for the dimensions
    onnx.helper.set_model_props(model, dict(description))
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


def _read_onnx(generator: LoadedGenerator, path: Path) -> tuple[Callable[[Tensor], Tensor], dict[str, str]]:
    onnxruntime = _import_for_onnx()[1]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def translate(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run([_OUTPUT], {_INPUT: images.numpy()})[0])

    return translate, dict(session.get_modelmeta().custom_metadata_map)


def _write_torch(generator: LoadedGenerator, path: Path, description: Mapping[str, str]) -> None:
    buffer = io.BytesIO()  # a path must end in .pt2
    with _quiet_exporter():
        torch.export.save(_trace(generator), buffer, extra_files={METADATA_FILE: json.dumps(dict(description))})
    path.write_bytes(buffer.getbuffer())


def _read_torch(generator: LoadedGenerator, path: Path) -> tuple[Callable[[Tensor], Tensor], dict[str, str]]:
    extra = {METADATA_FILE: ""}
    program = torch.export.load(io.BytesIO(path.read_bytes()), extra_files=extra)
    return program.module(), json.loads(extra[METADATA_FILE])


def _write_safetensors(generator: LoadedGenerator, path: Path, description: Mapping[str, str]) -> None:
    # safetensors rejects tensors that share memory.
    tensors = {name: tensor.detach().clone().contiguous() for name, tensor in generator.network.state_dict().items()}
    save_file(tensors, path, dict(description))


def _read_safetensors(generator: LoadedGenerator, path: Path) -> tuple[Callable[[Tensor], Tensor], dict[str, str]]:
    network = build_system(generator.recipe).directions[generator.direction].eval()
    with safe_open(path, framework="pt") as file:
        network.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118 (no mapping)
        return lambda images: run_generator(network, images), dict(file.metadata())


def _trace(generator: LoadedGenerator) -> torch.export.ExportedProgram:
    """Trace the network to a graph for any number of images of any size that it accepts."""
    multiple, smallest = size_multiple_of(generator.network), smallest_size_of(generator)
    # Not the smallest size, and no two equal dimensions: the exporter could take an equality in the example for a rule.
    units = smallest // multiple
    height, width = multiple * (units + 3), multiple * (units + 5)
    image = smooth_images(generator.source.channels)[0][..., :1, :1].expand(2, -1, height, width).contiguous()
    rows, columns = (torch.export.Dim(name, min=units) for name in ("rows", "columns"))
    if multiple > 1:
        rows, columns = multiple * rows, multiple * columns
    shapes = ({0: torch.export.Dim("batch"), 2: rows, 3: columns},)
    with torch.no_grad():
        program = torch.export.export(generator.network, (image,), dynamic_shapes=shapes, strict=False)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # they contain local paths
    return program


def _dimension_names(multiple: int) -> dict[int, str]:
    factor = "" if multiple == 1 else f"{multiple}*"
    return {0: "batch", 2: f"{factor}rows", 3: f"{factor}columns"}


def _import_for_onnx() -> tuple[Any, Any]:
    with requires_extra("export", "ONNX", ExportError):
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401 (used by torch.onnx)
    return onnx, onnxruntime


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silence warnings of torch.onnx about its own use of deprecated functions of copyreg and onnxscript, and of torch.export
    about weights that are views of larger tensors. Every exported file is verified.
    """
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", FutureWarning)
            warnings.filterwarnings("ignore", "No complete tensor found")
            yield
    finally:
        logger.setLevel(level)


FORMATS: dict[str, FileFormat] = {
    "onnx": FileFormat("onnxruntime", "the network's own names", True, _write_onnx, _read_onnx),
    "torch": FileFormat("torch.export", "the network's own names", True, _write_torch, _read_torch),
    "safetensors": FileFormat(
        "a network rebuilt from its recipe", "the network's own names", False, _write_safetensors, _read_safetensors
    ),
}

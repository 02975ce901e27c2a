"""Files of weights from strangers: tensors by name, and nothing else. No object is ever unpickled."""

import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from gantoolkit.errors import CheckpointError

__all__ = ["read_weights"]

_WRAPPERS = ("state_dict", "model_state_dict", "params", "params_ema", "generator", "netG", "model")
"""Under these keys other projects keep the weights when they save more than them."""

_MAX_DEPTH = 4  # a table can be made to hold itself
_MAX_RATIO, _SPARE = 2, 1 << 26


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file or of one that `torch.save` wrote, on the CPU, in the file's order.

    Raises:
        CheckpointError: When the file is missing, damaged, holds no named tensors, or needs Python objects to be loaded,
            which could run code.
    """
    path = Path(path)
    if not path.exists():
        raise CheckpointError(f"{path}: no such file")
    if not path.is_file():
        raise CheckpointError(
            f"{path}: is {'a folder' if path.is_dir() else 'a pipe or a device'}, not a file of weights"
        )
    try:
        if _is_safetensors(path):
            return load_file(path)
        _refuse_bomb(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch says of old kinds of tensors is for who wrote them
            held = torch.load(path, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except pickle.UnpicklingError as error:
        if "Unsupported operand" in str(error):  # no pickle at all
            raise CheckpointError(f"{path}: is damaged, or no file of weights") from error
        raise CheckpointError(
            f"{path}: holds more than tensors, and loading that could run a stranger's code; it is refused. In the project "
            "that it comes from, save only the weights: torch.save(network.state_dict(), ...)"
        ) from error
    except Exception as error:  # a damaged pickle is a program with mistakes, and raises whatever those come to
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise CheckpointError(f"{path}: is damaged, or no file of weights ({reason})") from error
    found = _find_tensors(held)
    if not found:
        raise CheckpointError(f"{path}: holds no named tensors but {_describe(held)}")
    for name, tensor in found.items():
        _refuse_hollow(path, name, tensor)
    return found


def _refuse_bomb(path: Path) -> None:
    """What torch writes is not compressed; what is may come to any size."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as file:
        size = sum(info.file_size for info in file.infolist())
    if size > _MAX_RATIO * path.stat().st_size + _SPARE:
        raise CheckpointError(f"{path}: unpacks to more than {_MAX_RATIO} times its size; it is refused")


def _refuse_hollow(path: Path, name: str, tensor: Tensor) -> None:
    """A tensor whose shape says more than the file holds: whoever makes a network of that shape runs out of memory."""
    if tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized or tensor.is_nested:
        raise CheckpointError(f"{path}: '{name}' is no plain tensor; save dense ones of floats or integers")
    if tensor.nbytes > tensor.untyped_storage().nbytes():
        raise CheckpointError(f"{path}: '{name}' {tuple(tensor.shape)} is larger than its data; save it contiguous")


def _is_safetensors(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(9)
    return start[8:] == b"{"


def _find_tensors(held: Any, depth: int = 0) -> dict[str, Tensor]:
    if not isinstance(held, Mapping) or depth > _MAX_DEPTH:
        return {}
    tensors = {str(name): value for name, value in held.items() if isinstance(value, Tensor)}
    if tensors:
        return tensors
    return next((found for key in _WRAPPERS if (found := _find_tensors(held.get(key), depth + 1))), {})


def _describe(held: Any) -> str:
    if isinstance(held, Mapping):
        return f"a table with {', '.join(map(str, list(held)[:5])) or 'nothing in it'}"
    return f"a {type(held).__name__}"

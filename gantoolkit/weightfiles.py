"""Files of weights from strangers: tensors by name, and nothing else. No object is ever unpickled."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from gantoolkit.errors import CheckpointError

__all__ = ["read_weights"]

_WRAPPERS = ("state_dict", "model_state_dict", "params", "params_ema", "generator", "netG", "model")
"""Under these keys other projects keep the weights when they save more than them."""


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file or of one that `torch.save` wrote, on the CPU, in the file's order.

    Raises:
        CheckpointError: When the file is missing, damaged, holds no named tensors, or needs Python objects to be loaded,
            which could run code.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        if _is_safetensors(path):
            return load_file(path)
        held = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: holds more than tensors, and loading that could run a stranger's code; it is refused. In the project "
            "that it comes from, save only the weights: torch.save(network.state_dict(), ...)"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, AttributeError, SafetensorError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise CheckpointError(f"{path}: is damaged, or no file of weights ({reason})") from error
    found = _find_tensors(held)
    if not found:
        raise CheckpointError(f"{path}: holds no named tensors but {_describe(held)}")
    return found


def _is_safetensors(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(9)
    return start[8:] == b"{"


def _find_tensors(held: Any) -> dict[str, Tensor]:
    if not isinstance(held, Mapping):
        return {}
    tensors = {str(name): value for name, value in held.items() if isinstance(value, Tensor)}
    if tensors:
        return tensors
    return next((found for key in _WRAPPERS if (found := _find_tensors(held.get(key)))), {})


def _describe(held: Any) -> str:
    if isinstance(held, Mapping):
        return f"a table with {', '.join(map(str, list(held)[:5])) or 'nothing in it'}"
    return f"a {type(held).__name__}"

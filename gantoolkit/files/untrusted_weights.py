"""Files of weights from strangers: tensors by name, and nothing else. No object is ever unpickled."""

import io
import pickle
import pickletools
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from gantoolkit.errors import CheckpointError
from gantoolkit.files.atomic import describe_absence

__all__ = ["read_weights"]

_WRAPPERS = ("state_dict", "model_state_dict", "params", "params_ema", "generator", "netG", "model")
"""Under these keys other projects keep the weights when they save more than them."""

_MAX_DEPTH = 4  # a table can be made to hold itself
_MAX_RATIO, _SPARE = 2, 1 << 26
_MAX_NESTING = 16
# In a file that torch wrote before 2020: magic number, protocol, machine, what was saved, names of storages.
_LEGACY_PICKLES = 5


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file or of one that `torch.save` wrote, on the CPU, in the file's order.

    Raises:
        CheckpointError: When the file is missing, damaged, holds no named tensors, or needs Python objects to be loaded,
            which could run code.
    """
    path = Path(path)
    if problem := describe_absence(path, "a file of weights"):
        raise CheckpointError(f"{path}: {problem}")
    try:
        if _is_safetensors(path):
            return load_file(path)
        _refuse_bomb(path)
        _refuse_nested_keys(path)
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


def _refuse_nested_keys(path: Path) -> None:
    """A tuple that holds one twice, which holds one twice, and so on, as a key: a hundred bytes, and hashing it never ends."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as file:
            programs = [file.read(name) for name in file.namelist() if name.endswith(".pkl")]
        for program in programs:
            _refuse_nested_tuples(path, io.BytesIO(program), 1)
        return
    with path.open("rb") as file:
        _refuse_nested_tuples(path, file, _LEGACY_PICKLES)


def _refuse_nested_tuples(path: Path, file: IO[bytes], pickles: int) -> None:
    for _ in range(pickles):
        try:
            deepest = _nesting(file)
        except (ValueError, IndexError):  # no pickle, or a damaged one: torch says so better
            return
        if deepest > _MAX_NESTING:
            raise CheckpointError(f"{path}: holds tuples {deepest} deep, which no weights need; it is refused")


def _nesting(program: IO[bytes]) -> int:
    """How deep tuples lie in each other in the next pickle of a file; it is followed, not run."""
    stack: list[int | None] = []  # the depth of each value; none for a mark
    memo: dict[Any, int] = {}
    deepest = 0
    for opcode, argument, _ in pickletools.genops(program):
        taken: list[int] = []
        if pickletools.markobject in opcode.stack_before:
            while (value := stack.pop()) is not None:
                taken.append(value)
        for kind in opcode.stack_before:
            if kind is pickletools.markobject:
                break
            taken.append(stack.pop() or 0)
        depth = max(taken, default=0) + opcode.name.startswith("TUPLE")
        deepest = max(deepest, depth)
        if opcode.name == "MEMOIZE":
            memo[len(memo)] = depth
        elif "PUT" in opcode.name:
            memo[argument] = stack[-1] or 0
        elif opcode.name.endswith("GET"):
            depth = memo.get(argument, 0)
        elif opcode.name in ("REDUCE", "BINPERSID"):
            depth = 0
        stack += [None if kind is pickletools.markobject else depth for kind in opcode.stack_after]
    return deepest


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

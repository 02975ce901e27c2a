"""Untrusted weight files: tensors by name and nothing else. No Python object is ever unpickled."""

import io
import pickle
import pickletools
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from gantoolkit.errors import CheckpointError
from gantoolkit.files.atomic import describe_missing_file
from gantoolkit.files.foreign_files import describe_foreign_file
from gantoolkit.files.foreign_weights import describe_foreign_weights
from gantoolkit.files.paths import user_path

__all__ = ["read_weights"]

_WRAPPERS = ("state_dict", "model_state_dict", "params", "params_ema", "generator", "netG", "model")
"""The keys under which other projects store the weights beside other values."""

_MAX_DEPTH = 4  # a dictionary may contain itself
_MAX_RATIO, _EXTRA_BYTES = 2, 1 << 26
_MAX_NESTING = 16
# In the format that torch wrote before 2020: magic number, protocol, system, saved object, names of storages.
_LEGACY_PICKLES = 5


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file or a `torch.save` file to the CPU, in the file's order.

    Raises:
        CheckpointError: When the file is missing or damaged, contains no named tensors, or contains other Python objects,
            which could run code when loaded.
    """
    path = user_path(path)
    if problem := describe_missing_file(path, "a weight file"):
        raise CheckpointError(f"{path}: {problem}")
    try:
        if _is_safetensors(path):
            return load_file(path)
        if description := describe_foreign_file(path):
            raise CheckpointError(f"{path}: is {description}")
        _check_unpacked_size(path)
        _check_tuple_depth(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's deprecation warnings are meant for the author of the file
            content = torch.load(path, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except pickle.UnpicklingError as error:
        if "Unsupported operand" in str(error):  # not a pickle
            raise CheckpointError(f"{path}: is damaged, or not a weight file") from error
        match = re.search(r"GLOBAL ([\w.]{1,100}) was not", str(error))
        kind = f" ({match[1]})" if match else ""
        raise CheckpointError(
            f"{path}: contains other objects than tensors{kind}, and loading them could run untrusted code. In the project "
            "that wrote it, save only the weights: torch.save(network.state_dict(), ...)"
        ) from error
    except Exception as error:  # a damaged pickle may raise any exception
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise CheckpointError(f"{path}: is damaged, or not a weight file ({reason})") from error
    tensors = _find_tensors(content)
    if not tensors:
        origin = describe_foreign_weights(_find_shapes(content))
        hint = f"; it looks like {origin}" if origin else ""
        raise CheckpointError(f"{path}: contains {_describe(content)}, not named tensors{hint}")
    for name, tensor in tensors.items():
        _check_tensor(path, name, tensor)
    return tensors


def _check_unpacked_size(path: Path) -> None:
    """Reject compressed archives, which may unpack to any size; torch does not compress."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as file:
        size = sum(info.file_size for info in file.infolist())
    if size > _MAX_RATIO * path.stat().st_size + _EXTRA_BYTES:
        raise CheckpointError(f"{path}: unpacks to more than {_MAX_RATIO} times its size, which is not allowed")


def _check_tuple_depth(path: Path) -> None:
    """Reject deeply nested tuples: if each contains the next one twice, a hundred bytes make a key that never hashes."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as file:
            programs = [file.read(name) for name in file.namelist() if name.endswith(".pkl")]
        for program in programs:
            _check_pickles(path, io.BytesIO(program), 1)
        return
    with path.open("rb") as file:
        _check_pickles(path, file, _LEGACY_PICKLES)


def _check_pickles(path: Path, file: IO[bytes], pickles: int) -> None:
    for _ in range(pickles):
        try:
            depth = _tuple_depth(file)
        except (ValueError, IndexError):  # not a pickle or damaged, which torch reports better
            return
        if depth > _MAX_NESTING:
            raise CheckpointError(f"{path}: contains tuples nested {depth} deep, which is not allowed")


def _tuple_depth(program: IO[bytes]) -> int:
    """The nesting depth of tuples in the next pickle of a file, whose opcodes are traced without running them."""
    stack: list[int | None] = []  # the depth of each value; None for a mark
    memo: dict[Any, int] = {}
    deepest = 0
    for opcode, argument, _ in pickletools.genops(program):
        operands: list[int] = []
        if pickletools.markobject in opcode.stack_before:
            while (value := stack.pop()) is not None:
                operands.append(value)
        for kind in opcode.stack_before:
            if kind is pickletools.markobject:
                break
            operands.append(stack.pop() or 0)
        depth = max(operands, default=0) + opcode.name.startswith("TUPLE")
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


def _check_tensor(path: Path, name: str, tensor: Tensor) -> None:
    """Reject tensors whose shape exceeds their data: a network of that shape could exhaust the memory."""
    if tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized or tensor.is_nested:
        raise CheckpointError(f"{path}: '{name}' is not a plain tensor; save dense tensors of floats or integers")
    if tensor.nbytes > tensor.untyped_storage().nbytes():
        raise CheckpointError(
            f"{path}: '{name}' {tuple(tensor.shape)} is larger than its data; save it with .contiguous()"
        )


def _is_safetensors(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(9)
    return start[8:] == b"{"


def _find_tensors(content: Any, depth: int = 0) -> dict[str, Tensor]:
    if not isinstance(content, Mapping) or depth > _MAX_DEPTH:
        return {}
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if tensors:
        return tensors
    return next((weights for key in _WRAPPERS if (weights := _find_tensors(content.get(key), depth + 1))), {})


def _find_shapes(content: Any, prefix: str = "", depth: int = 0) -> dict[str, tuple[int, ...]]:
    """The shapes of all tensors in nested dictionaries, by dotted name."""
    if isinstance(content, Tensor):
        return {prefix.removesuffix("."): tuple(content.shape)}
    shapes: dict[str, tuple[int, ...]] = {}
    if isinstance(content, Mapping) and depth <= _MAX_DEPTH:
        for name, value in content.items():
            shapes |= _find_shapes(value, f"{prefix}{name}.", depth + 1)
    return shapes


def _describe(content: Any) -> str:
    if isinstance(content, Mapping):
        return f"a dictionary with {', '.join(map(str, list(content)[:5])) or 'no keys'}"
    return f"a {type(content).__name__}"

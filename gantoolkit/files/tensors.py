"""Tensor files: safetensors with a JSON header and a checksum, written atomically.

Nothing is unpickled, so an untrusted file cannot run code.
"""

import contextlib
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gantoolkit.errors import CheckpointError
from gantoolkit.files.atomic import atomic_write, describe_missing_file, describe_write_error

__all__ = ["check_header", "read_header", "read_shapes", "read_tensors", "write_tensors"]

_TYPE_NAMES = {str: "a string", int: "an integer", dict: "a dictionary", list: "a list"}
_READ_ERRORS = (OSError, SafetensorError, ValueError, KeyError, TypeError, RuntimeError, AttributeError)
"""The exceptions that damaged files, and dtypes that torch does not have, raise on reading."""


def write_tensors(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write a tensor file, read it back from the disk, and only then replace the old file at `path`.

    Args:
        header: Metadata that can be stored as JSON; `read_header` returns it.

    Raises:
        CheckpointError: When the file cannot be written, or differs when it is read back. The old file remains.
    """
    stored = _separate({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    text = json.dumps(header)
    metadata = {"header": text, "sha256": _checksum(stored, text)}

    def verify(part: Path) -> None:
        is_equal = False
        with contextlib.suppress(SafetensorError):  # too damaged to be recognized as safetensors
            is_equal = _is_equal(part, stored, metadata)
        if not is_equal:
            raise CheckpointError(f"{path}: was not saved: the disk returns different bytes from those written")

    try:
        with atomic_write(path, verify) as part:
            save_file(stored, part, metadata)
    except (OSError, SafetensorError) as error:
        needed = sum(tensor.nbytes for tensor in stored.values())
        raise CheckpointError(describe_write_error(path, error, needed)) from error


def _is_equal(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bool:
    """Whether a file contains these tensors bit for bit. Comparing takes a fifth of the time of writing, without a checksum."""
    with safe_open(path, framework="pt") as file:
        return (
            file.metadata() == metadata
            and set(file.keys()) == set(tensors)
            and all(_same_bits(file.get_tensor(name), tensor) for name, tensor in tensors.items())
        )


def _same_bits(one: Tensor, other: Tensor) -> bool:
    # Compared as bytes, because NaN is not equal to itself.
    return (one.dtype, one.shape) == (other.dtype, other.shape) and torch.equal(_as_bytes(one), _as_bytes(other))


def _as_bytes(tensor: Tensor) -> Tensor:
    return tensor.reshape(-1).view(torch.uint8)


def read_header(path: Path) -> dict[str, Any]:
    """Read the header of a file that `write_tensors` wrote.

    Raises:
        CheckpointError: When the file cannot be read or was not written by gantoolkit.
    """
    _check_is_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})["header"])
    except (OSError, SafetensorError, KeyError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: is not a gantoolkit file, or damaged ({_reason(error)})") from error
    if not isinstance(header, dict):
        raise CheckpointError(f"{path}: is not a gantoolkit file, or damaged (its header is not a dictionary)")
    return header


def check_header(path: Path, header: Mapping[str, Any], kinds: Mapping[str, type]) -> None:
    """Check that the untrusted header of a file contains values of the expected types.

    Raises:
        CheckpointError: When a value is missing or of another type.
    """
    for key, kind in kinds.items():
        if type(header.get(key)) is not kind:
            problem = f"is {header[key]!r}, but has to be {_TYPE_NAMES[kind]}" if key in header else "is missing"
            raise CheckpointError(f"{path}: is damaged: '{key}' in its header {problem}")


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Read the shapes of a file's tensors without reading the tensors.

    Raises:
        CheckpointError: When the file cannot be read.
    """
    _check_is_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except _READ_ERRORS as error:
        raise CheckpointError(f"{path}: is damaged, or not a tensor file ({_reason(error)})") from error


def read_tensors(path: Path, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """Read the tensors of a file and verify its checksum.

    Raises:
        CheckpointError: When the file cannot be read, or its content does not match its checksum.
    """
    _check_is_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        checksum = _checksum(tensors, metadata.get("header", ""))
    except _READ_ERRORS as error:
        raise CheckpointError(f"{path}: is damaged, or not a tensor file ({_reason(error)})") from error
    if metadata.get("sha256") != checksum:
        raise CheckpointError(f"{path}: is damaged: its content does not match its checksum")
    return {name: tensor.to(device) for name, tensor in tensors.items()}


def _check_is_file(path: Path) -> None:
    if path.exists() and (problem := describe_missing_file(path, "a tensor file")):
        raise CheckpointError(f"{path}: {problem}")


def _separate(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copy tensors that share memory with another one (tied layers), which safetensors cannot store."""
    addresses: set[int] = set()
    separate: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        address = tensor.untyped_storage().data_ptr()
        separate[name] = tensor.clone() if address in addresses else tensor
        addresses.add(address)
    return separate


def _checksum(tensors: Mapping[str, Tensor], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(_as_bytes(tensor).numpy().data)
    return digest.hexdigest()


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "its header is nested too deep"
    return f"'{error.args[0]}' is missing" if isinstance(error, KeyError) else str(error)

"""Files of tensors that describe themselves: safetensors with text beside the weights, written whole or not at all.

Nothing is unpickled, so a stranger's file cannot run code.
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
from gantoolkit.files.atomic import describe_absence, describe_failure, whole_file

__all__ = ["check_header", "read_header", "read_shapes", "read_tensors", "write_tensors"]

_KINDS = {str: "a text", int: "an integer", dict: "a table", list: "a list"}
_READING = (OSError, SafetensorError, ValueError, KeyError, TypeError, RuntimeError, AttributeError)
"""What comes of reading a damaged file; of types that torch does not have, too."""


def write_tensors(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write a file of tensors, read it back from the disk, and only then put it in the place of what was at `path`.

    Args:
        header: Anything that JSON can hold; `read_header` gives it back.

    Raises:
        CheckpointError: When it cannot be written, or does not read as it was written; what was at `path` stays whole.
    """
    stored = _separate({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    text = json.dumps(header)
    metadata = {"header": text, "sha256": _checksum(stored, text)}

    def read_back(part: Path) -> None:
        is_kept = False
        with contextlib.suppress(SafetensorError):  # so little is left that it is no such file any more
            is_kept = _holds(part, stored, metadata)
        if not is_kept:
            raise CheckpointError(f"{path}: was not kept: the disk gives back other bytes than it was given")

    try:
        with whole_file(path, read_back) as part:
            save_file(stored, part, metadata)
    except (OSError, SafetensorError) as error:
        needed = sum(tensor.nbytes for tensor in stored.values())
        raise CheckpointError(describe_failure(path, error, needed)) from error


def _holds(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bool:
    """Whether a file holds these tensors bit for bit; to compare takes a fifth of the time of writing, and no second sum."""
    with safe_open(path, framework="pt") as file:
        return (
            file.metadata() == metadata
            and set(file.keys()) == set(tensors)
            and all(_same_bits(file.get_tensor(name), tensor) for name, tensor in tensors.items())
        )


def _same_bits(one: Tensor, other: Tensor) -> bool:
    # As bytes: NaN is not equal to itself.
    return (one.dtype, one.shape) == (other.dtype, other.shape) and torch.equal(_as_bytes(one), _as_bytes(other))


def _as_bytes(tensor: Tensor) -> Tensor:
    return tensor.reshape(-1).view(torch.uint8)


def read_header(path: Path) -> dict[str, Any]:
    """What was written beside the tensors.

    Raises:
        CheckpointError: When the file cannot be read or is not one of ours.
    """
    _refuse_what_is_no_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})["header"])
    except (OSError, SafetensorError, KeyError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: is no file of gantoolkit, or damaged ({_reason(error)})") from error
    if not isinstance(header, dict):
        raise CheckpointError(f"{path}: is no file of gantoolkit, or damaged (its header is no table)")
    return header


def check_header(path: Path, header: Mapping[str, Any], kinds: Mapping[str, type]) -> None:
    """See that a header holds what is about to be used, each of its type; whoever made the file may have written anything.

    Raises:
        CheckpointError: At the first that is missing or of another type.
    """
    for key, kind in kinds.items():
        if type(header.get(key)) is not kind:
            found = f"is {header[key]!r}, where {_KINDS[kind]} is needed" if key in header else "is missing"
            raise CheckpointError(f"{path}: is damaged: '{key}' in its header {found}")


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of a file's tensors, none of which is read.

    Raises:
        CheckpointError: When the file cannot be read.
    """
    _refuse_what_is_no_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except _READING as error:
        raise CheckpointError(f"{path}: is damaged, or no file of tensors ({_reason(error)})") from error


def read_tensors(path: Path, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """The tensors of a file, once its checksum has been found right.

    Raises:
        CheckpointError: When the file cannot be read, or its content is not what was written.
    """
    _refuse_what_is_no_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        found = _checksum(tensors, metadata.get("header", ""))
    except _READING as error:
        raise CheckpointError(f"{path}: is damaged, or no file of tensors ({_reason(error)})") from error
    if metadata.get("sha256") != found:
        raise CheckpointError(f"{path}: is damaged: its checksum does not agree with its content")
    return {name: tensor.to(device) for name, tensor in tensors.items()}


def _refuse_what_is_no_file(path: Path) -> None:
    if path.exists() and (problem := describe_absence(path, "a file of tensors")):
        raise CheckpointError(f"{path}: {problem}")


def _separate(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies of those that share memory with another one (tied layers), which a file cannot express."""
    seen: set[int] = set()
    separate: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        address = tensor.untyped_storage().data_ptr()
        separate[name] = tensor.clone() if address in seen else tensor
        seen.add(address)
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
    return f"no '{error.args[0]}' in it" if isinstance(error, KeyError) else str(error)

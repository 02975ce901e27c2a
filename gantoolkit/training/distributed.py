"""Distributed training: several processes that train one run, as `torchrun` starts them; one process is the simplest case.

Every process holds the same weights and computes on its share of each batch. Only the main process, rank 0, reads and writes
the run's folder.
"""

import importlib
import json
import os
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from safetensors.torch import load, save
from torch import Tensor
from torch import distributed as dist
from torch.distributed.rendezvous import rendezvous

from gantoolkit.errors import TrainingError, first_line
from gantoolkit.runtime.torchrun import launched_rank, launched_world_size
from gantoolkit.training.interrupts import Interrupts

__all__ = ["SINGLE_PROCESS", "ProcessGroup", "get_world_size", "is_main_process", "join_process_group"]

Value = TypeVar("Value")

_POLL_S = 0.2
"""Seconds between two checks for a signal."""

_TIMEOUT = timedelta(hours=1)
"""How long processes wait for each other: they wait while the main process evaluates."""


@dataclass(frozen=True)
class ProcessGroup:
    """The processes of a run, seen from one of them. Every process must call the collective methods in the same order.

    They raise a `TrainingError` in all processes when one is lost.

    Args:
        rank: Rank of this process, from 0.
        world_size: Number of processes.
    """

    rank: int = 0
    world_size: int = 1

    @property
    def is_main_process(self) -> bool:
        """Whether this process reads and writes the run's folder."""
        return self.rank == 0

    def all_reduce(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over all processes, with one all-reduce per dtype."""
        if self.world_size > 1:
            for group, flat in _flatten(tensors):
                with _explain_lost_process():
                    dist.all_reduce(flat)
                _unflatten(flat, group)

    def broadcast(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its values in the main process."""
        if self.world_size > 1:
            for group, flat in _flatten(tensors):
                with _explain_lost_process():
                    dist.broadcast(flat, src=0)
                _unflatten(flat, group)

    def all_gather_object(self, value: Value | None) -> list[Value | None]:
        """The objects of all processes by rank. They must be JSON-serializable; None is passed at little cost."""
        if self.world_size == 1:
            return [value]
        text = b"" if value is None else json.dumps(value).encode()
        return [json.loads(answer) if answer else None for answer in self._all_gather_bytes(text)]

    def barrier(self) -> None:
        """Wait for all processes."""
        self.all_gather_object(None)

    def broadcast_object(self, value: Value | None) -> Value:
        """The JSON-serializable value of the main process; the values of the others are ignored."""
        return self.all_gather_object(value if self.is_main_process else None)[0]  # type: ignore[return-value]

    def gather(self, tensors: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
        """In the main process, the tensors of all processes by rank and name, on the CPU; elsewhere an empty list."""
        if self.world_size == 1:
            return [dict(tensors)]
        own = bytearray(save({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}))
        sizes = [json.loads(size) for size in self._all_gather_bytes(json.dumps(len(own)).encode())]
        with _explain_lost_process():
            if not self.is_main_process:
                dist.send(torch.frombuffer(own, dtype=torch.uint8), dst=0)
                return []
            states = [load(bytes(own))]
            for other, size in enumerate(sizes[1:], start=1):
                buffer = torch.empty(size, dtype=torch.uint8)
                dist.recv(buffer, src=other)
                states.append(load(buffer.numpy().tobytes()))
        return states

    def broadcast_tensors(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of the main process by name, on the CPU; those of the others are ignored."""
        if self.world_size == 1:
            return dict(tensors)
        stored = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()} if self.is_main_process else {}
        layout = [
            [name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape)] for name, tensor in stored.items()
        ]
        received: dict[str, Tensor] = {}
        for name, dtype, shape in self.broadcast_object(layout):
            tensor = stored[name] if self.is_main_process else torch.empty(shape, dtype=getattr(torch, dtype))
            with _explain_lost_process():
                dist.broadcast(tensor, src=0)
            received[name] = tensor
        return received

    def _all_gather_bytes(self, text: bytes) -> list[bytes]:
        lengths = torch.zeros(self.world_size, dtype=torch.int64)
        lengths[self.rank] = len(text)
        with _explain_lost_process():
            dist.all_reduce(lengths)
            longest = int(lengths.max())
            if not longest:  # the usual case: all objects are None
                return [b""] * self.world_size
            padded = torch.zeros(longest, dtype=torch.uint8)
            padded[: len(text)] = torch.frombuffer(bytearray(text), dtype=torch.uint8) if text else padded[:0]
            texts = [torch.empty_like(padded) for _ in range(self.world_size)]
            dist.all_gather(texts, padded)
        return [part[:length].numpy().tobytes() for part, length in zip(texts, lengths.tolist(), strict=True)]


SINGLE_PROCESS = ProcessGroup()
"""A run in a single process."""


def is_main_process() -> bool:
    """Whether this process reads and writes the run's folder; available before the processes have joined."""
    rank = dist.get_rank() if dist.is_available() and dist.is_initialized() else launched_rank()
    return rank == 0


def get_world_size() -> int:
    """The number of processes of the run; available before they have joined."""
    is_initialized = dist.is_available() and dist.is_initialized()
    return dist.get_world_size() if is_initialized else launched_world_size()


@contextmanager
def join_process_group(device: torch.device, interrupts: Interrupts) -> Iterator[ProcessGroup]:
    """Join the other processes of a launcher such as `torchrun`; without a launcher, yield a group of one process.

    A launcher sets `RANK`, `WORLD_SIZE`, `MASTER_ADDR` and `MASTER_PORT`. The backend is gloo on CPUs and NCCL on CUDA devices.
    An existing process group is used and not destroyed; it must support CPU tensors too.

    Raises:
        TrainingError: When the processes do not find each other, or two of them use one CUDA device.
        KeyboardInterrupt: When a signal arrives before they have joined.
    """
    if not dist.is_available() or get_world_size() == 1:
        yield SINGLE_PROCESS
        return
    is_own = not dist.is_initialized()
    if is_own:
        # The functions of this module take the group that exists at its import as a default argument. Parts of torch import it
        # on first use, which would keep our group and its threads alive until Python exits.
        importlib.import_module("torch.distributed.nn.functional")
        _rendezvous(device, interrupts)
    process_group = ProcessGroup(dist.get_rank(), dist.get_world_size())
    own = [socket.gethostname(), _identify(device)]
    if device.type == "cuda" and process_group.all_gather_object(own).count(own) > 1:
        raise TrainingError(
            f"several processes use {device}; pass --device cuda, which gives each process a device of its own"
        )
    yield process_group
    # Not after an error: other processes may be inside a collective call, which fails when this process exits.
    if is_own:
        dist.destroy_process_group()


def _rendezvous(device: torch.device, interrupts: Interrupts) -> None:
    failures: list[Exception] = []

    def join() -> None:
        try:
            if device.type == "cuda":
                torch.cuda.set_device(device.index or 0)
            store, rank, world_size = next(rendezvous("env://", timeout=_TIMEOUT))
            # A launcher that restarts all processes keeps its store, with the addresses of the old ones.
            store = dist.PrefixStore(f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)  # pyright: ignore[reportPrivateImportUsage]
            backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
            dist.init_process_group(backend, store=store, rank=rank, world_size=world_size, timeout=_TIMEOUT)
        except (RuntimeError, ValueError) as error:
            failures.append(error)

    # In a thread, because a signal cannot interrupt this wait.
    thread = threading.Thread(target=join, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(_POLL_S)
        if interrupts.received is not None:
            raise KeyboardInterrupt(interrupts.received)
    if device.type == "cuda":
        torch.cuda.set_device(device.index or 0)  # the current device belongs to the thread
    if failures:
        raise TrainingError(
            f"the processes of this run did not find each other ({first_line(failures[0])}); start them with "
            "torchrun, which sets RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT"
        ) from failures[0]


def _identify(device: torch.device) -> str:
    """An identifier of the device that is unique even if a launcher shows each process a single device."""
    if device.type != "cuda":
        return str(device)
    return str(getattr(torch.cuda.get_device_properties(device), "uuid", device))


def _flatten(tensors: Sequence[Tensor]) -> Iterator[tuple[list[Tensor], Tensor]]:
    """For each dtype, its tensors and one flat copy of them."""
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
        group = [tensor for tensor in tensors if tensor.dtype == dtype]
        yield group, torch.cat([tensor.detach().reshape(-1) for tensor in group])


def _unflatten(flat: Tensor, tensors: Sequence[Tensor]) -> None:
    pieces = flat.split([tensor.numel() for tensor in tensors])
    with torch.no_grad():
        sources = [piece.view(tensor.shape) for tensor, piece in zip(tensors, pieces, strict=True)]
        torch._foreach_copy_(list(tensors), sources)  # pyright: ignore[reportPrivateImportUsage]


@contextmanager
def _explain_lost_process() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        # NCCL raises its own type of error; gloo names its source file in the message.
        is_gloo = "/gloo/" in str(error)
        if not is_gloo and not isinstance(error, dist.DistError):
            raise
        reason = "" if is_gloo else f" ({first_line(error)})"
        raise TrainingError(
            f"another process of this run has exited or cannot be reached{reason}; the last checkpoint is complete: repeat "
            "the command to resume from it"
        ) from error

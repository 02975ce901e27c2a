"""Several processes that train one run together, as `torchrun` starts them; one process alone is the simplest case.

Every process holds the same weights and computes on its share of each batch. Only one of them, the writer, reads and
writes the run's folder, so that the others need not see it.
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

_GLANCE = 0.2
"""Seconds between two looks whether a signal has come."""

_PATIENCE = timedelta(hours=1)
"""How long processes wait for each other: as long as the writer measures, the others stand still."""


@dataclass(frozen=True)
class ProcessGroup:
    """The processes of a run, seen by one of them. Each method has to be called by all, in the same order.

    A process that has been lost makes each of them raise a `TrainingError`.

    Args:
        rank: Rank of this process, from 0.
        world_size: Number of processes.
    """

    rank: int = 0
    world_size: int = 1

    @property
    def is_main_process(self) -> bool:
        """Whether this one reads and writes the run's folder."""
        return self.rank == 0

    def all_reduce(self, tensors: Sequence[Tensor]) -> None:
        """Put the sum over all processes into each tensor, in one all-reduce for each type of numbers."""
        if self.world_size > 1:
            for together, flat in _flattened(tensors):
                with _explain_loss():
                    dist.all_reduce(flat)
                _spread(flat, together)

    def broadcast(self, tensors: Sequence[Tensor]) -> None:
        """Put the writer's values into each tensor."""
        if self.world_size > 1:
            for together, flat in _flattened(tensors):
                with _explain_loss():
                    dist.broadcast(flat, src=0)
                _spread(flat, together)

    def all_gather_object(self, note: Value | None) -> list[Value | None]:
        """What every process has to say, in the order of their numbers; JSON can hold it, and nothing may be None."""
        if self.world_size == 1:
            return [note]
        text = b"" if note is None else json.dumps(note).encode()
        return [json.loads(said) if said else None for said in self._all_gather_bytes(text)]

    def barrier(self) -> None:
        """Wait until all have come here."""
        self.all_gather_object(None)

    def broadcast_object(self, value: Value | None) -> Value:
        """The writer's value, which JSON can hold; what the others give is not looked at."""
        return self.all_gather_object(value if self.is_main_process else None)[0]  # type: ignore[return-value]

    def gather(self, tensors: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
        """Every process's tensors by name, on the CPU, in the order of their numbers; an empty list but for the writer."""
        if self.world_size == 1:
            return [dict(tensors)]
        own = bytearray(save({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}))
        sizes = [json.loads(size) for size in self._all_gather_bytes(json.dumps(len(own)).encode())]
        with _explain_loss():
            if not self.is_main_process:
                dist.send(torch.frombuffer(own, dtype=torch.uint8), dst=0)
                return []
            gathered = [load(bytes(own))]
            for other, size in enumerate(sizes[1:], start=1):
                buffer = torch.empty(size, dtype=torch.uint8)
                dist.recv(buffer, src=other)
                gathered.append(load(buffer.numpy().tobytes()))
        return gathered

    def broadcast_tensors(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The writer's tensors by name, on the CPU; what the others give is not looked at."""
        if self.world_size == 1:
            return dict(tensors)
        stored = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()} if self.is_main_process else {}
        form = [[name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape)] for name, tensor in stored.items()]
        received: dict[str, Tensor] = {}
        for name, dtype, shape in self.broadcast_object(form):
            tensor = stored[name] if self.is_main_process else torch.empty(shape, dtype=getattr(torch, dtype))
            with _explain_loss():
                dist.broadcast(tensor, src=0)
            received[name] = tensor
        return received

    def _all_gather_bytes(self, text: bytes) -> list[bytes]:
        lengths = torch.zeros(self.world_size, dtype=torch.int64)
        lengths[self.rank] = len(text)
        with _explain_loss():
            dist.all_reduce(lengths)
            longest = int(lengths.max())
            if not longest:  # the usual case: nobody has anything to say
                return [b""] * self.world_size
            padded = torch.zeros(longest, dtype=torch.uint8)
            padded[: len(text)] = torch.frombuffer(bytearray(text), dtype=torch.uint8) if text else padded[:0]
            said = [torch.empty_like(padded) for _ in range(self.world_size)]
            dist.all_gather(said, padded)
        return [part[:length].numpy().tobytes() for part, length in zip(said, lengths.tolist(), strict=True)]


SINGLE_PROCESS = ProcessGroup()
"""A run in one process."""


def is_main_process() -> bool:
    """Whether this process reads and writes a run's folder, known before processes have joined."""
    number = dist.get_rank() if dist.is_available() and dist.is_initialized() else launched_rank()
    return number == 0


def get_world_size() -> int:
    """How many processes share a run, known before they have joined."""
    is_there = dist.is_available() and dist.is_initialized()
    return dist.get_world_size() if is_there else launched_world_size()


@contextmanager
def join_process_group(device: torch.device, interrupts: Interrupts) -> Iterator[ProcessGroup]:
    """Come together with the other processes that a launcher has started; alone where there was none.

    A launcher says with `RANK`, `WORLD_SIZE`, `MASTER_ADDR` and `MASTER_PORT` who they are; `torchrun` does. They speak
    through gloo on CPUs and through NCCL on CUDA devices. A process group that is there already is used and left as it is;
    it has to take tensors of the CPU too.

    Raises:
        TrainingError: When they do not find each other, or two of them want one CUDA device.
        KeyboardInterrupt: When a signal comes before they have.
    """
    if not dist.is_available() or get_world_size() == 1:
        yield SINGLE_PROCESS
        return
    is_ours = not dist.is_initialized()
    if is_ours:
        # This module's functions have as a default the group that is there when it is imported. Parts of torch import it when
        # they are first used, which would hold our group, and keep its threads running, to the end of Python.
        importlib.import_module("torch.distributed.nn.functional")
        _find_each_other(device, interrupts)
    process_group = ProcessGroup(dist.get_rank(), dist.get_world_size())
    own = [socket.gethostname(), _name_device(device)]
    if device.type == "cuda" and process_group.all_gather_object(own).count(own) > 1:
        raise TrainingError(f"several processes want {device}; say --device cuda, and each takes one of its own")
    yield process_group
    # Not after an error: others may be in the middle of something, and the end of this process tells them.
    if is_ours:
        dist.destroy_process_group()


def _find_each_other(device: torch.device, interrupts: Interrupts) -> None:
    failures: list[Exception] = []

    def join() -> None:
        try:
            if device.type == "cuda":
                torch.cuda.set_device(device.index or 0)
            store, number, count = next(rendezvous("env://", timeout=_PATIENCE))
            # A launcher that starts all anew keeps its store, in which the addresses of those that have ended still lie.
            store = dist.PrefixStore(f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)  # pyright: ignore[reportPrivateImportUsage]
            backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
            dist.init_process_group(backend, store=store, rank=number, world_size=count, timeout=_PATIENCE)
        except (RuntimeError, ValueError) as error:
            failures.append(error)

    # In a thread: the wait is not one that a signal could end.
    waiting = threading.Thread(target=join, daemon=True)
    waiting.start()
    while waiting.is_alive():
        waiting.join(_GLANCE)
        if interrupts.received is not None:
            raise KeyboardInterrupt(interrupts.received)
    if device.type == "cuda":
        torch.cuda.set_device(device.index or 0)  # each thread has its own
    if failures:
        raise TrainingError(
            f"the processes of this run do not find each other ({first_line(failures[0])}); start them with "
            "torchrun, which sets RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT"
        ) from failures[0]


def _name_device(device: torch.device) -> str:
    """What tells a device from others, also where a launcher shows each process one alone."""
    if device.type != "cuda":
        return str(device)
    return str(getattr(torch.cuda.get_device_properties(device), "uuid", device))


def _flattened(tensors: Sequence[Tensor]) -> Iterator[tuple[list[Tensor], Tensor]]:
    """Tensors of one type of numbers together, and a copy of them in a row."""
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
        together = [tensor for tensor in tensors if tensor.dtype == dtype]
        yield together, torch.cat([tensor.detach().reshape(-1) for tensor in together])


def _spread(flat: Tensor, tensors: Sequence[Tensor]) -> None:
    pieces = flat.split([tensor.numel() for tensor in tensors])
    with torch.no_grad():
        for tensor, piece in zip(tensors, pieces, strict=True):
            tensor.copy_(piece.view(tensor.shape))


@contextmanager
def _explain_loss() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        # NCCL's errors have a type of their own, gloo's a source file in their message.
        is_gloo = "/gloo/" in str(error)
        if not is_gloo and not isinstance(error, dist.DistError):
            raise
        reason = "" if is_gloo else f" ({first_line(error)})"
        raise TrainingError(
            f"another process of this run has ended, or cannot be reached{reason}; what was saved last is whole: give the "
            "same command once more, and the run goes on from there"
        ) from error

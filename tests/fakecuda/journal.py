"""What a program asked of the stand-in, to be read by that program.

with record() as journal:
    trainer.step(batch)
print(len(journal.launches), len(journal.waits))
"""

import ctypes
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from textwrap import shorten
from typing import Literal, cast, get_args

__all__ = ["Capture", "Journal", "Record", "is_active", "mark", "record"]

Kind = Literal[
    "kernel",
    "copy",
    "memset",
    "host function",
    "graph",
    "wait",
    "event record",
    "event wait",
    "begin capture",
    "end capture",
    "invalid capture",
    "malloc",
    "free",
    "mark",
]
WORK = frozenset({"kernel", "copy", "memset", "host function"})
"""What becomes a node of a graph if it is captured."""


@dataclass(frozen=True)
class Record:
    """One call.

    Args:
        kind: What was asked for. A `wait` is one of the host for the device; an `event wait` is one of a stream.
        device: The device that it concerns.
        stream: The number of the stream, 0 for the default stream of a device; None where no stream takes part.
        capture: The number of the capture that it became a part of.
        name: Of a kernel, its library (`aten`, `triton`, `cudnn`, `cublas`, `nccl`, `nvrtc`) and name; of a copy, its
            direction, such as `pinned to device`; of a wait, the function; of an invalid capture, the reason.
        detail: Of a kernel, the size of its grid, or the shapes of its tensors.
        count: Of a copy, memset or allocation, its bytes; of a graph or a capture that ends, its nodes; otherwise 0.
    """

    kind: Kind
    device: int
    stream: int | None
    capture: int | None
    name: str
    detail: str
    count: int

    @property
    def library(self) -> str:
        """The library of a kernel."""
        return self.name.partition(" ")[0] if self.kind == "kernel" else ""


@dataclass(frozen=True)
class Capture:
    """A capture that has ended.

    Args:
        nodes: Its work, in the order of the calls.
        error: The name of CUDA's error, `cudaErrorStreamCaptureUnjoined` for example; empty if there is a graph.
        reason: Why it became invalid; empty if it did not.
    """

    nodes: list[Record]
    error: str
    reason: str


@dataclass
class Journal:
    """The calls of a part of a program, in order."""

    records: list[Record] = field(default_factory=list)

    def of_kind(self, *kinds: Kind) -> list[Record]:
        """The records of some kinds."""
        return [record for record in self.records if record.kind in kinds]

    @property
    def launches(self) -> list[Record]:
        """Kernels that were launched one by one, outside of captures."""
        return [record for record in self.of_kind("kernel") if record.capture is None]

    @property
    def replays(self) -> list[Record]:
        """Launches of graphs."""
        return [record for record in self.of_kind("graph") if record.capture is None]

    @property
    def waits(self) -> list[Record]:
        """Where the host waited for the device. A copy to pageable memory with the synchronization after it counts once."""
        return [
            record
            for previous, record in pairwise([None, *self.of_kind("wait")])
            if not (previous and previous.name == "copy to pageable memory" and record.name == "cudaStreamSynchronize")
        ]

    @property
    def copies(self) -> list[Record]:
        """Copies outside of captures."""
        return [record for record in self.of_kind("copy") if record.capture is None]

    @property
    def captures(self) -> list[Capture]:
        """Captures that ended."""
        reasons = {record.capture: record.name for record in self.of_kind("invalid capture")}
        return [
            Capture(
                [record for record in self.records if record.kind in WORK and record.capture == end.capture],
                end.name,
                reasons.get(end.capture, ""),
            )
            for end in self.of_kind("end capture")
        ]

    @property
    def devices(self) -> set[int]:
        """The devices that had work, waits or allocations."""
        return {record.device for record in self.records if record.kind != "mark"}

    def counts(self) -> dict[str, int]:
        """The number of records of each kind."""
        return dict(Counter(record.kind for record in self.records))

    def __str__(self) -> str:
        return "\n".join(
            f"{record.kind:15} device {record.device} stream {record.stream} capture {record.capture} "
            f"{shorten(record.name, 100, placeholder='...')} {record.detail or record.count or ''}"
            for record in self.records
        )


def is_active() -> bool:
    """Whether this process runs on the stand-in."""
    return hasattr(ctypes.CDLL(None), "fakecuda_journal")


@contextmanager
def record() -> Iterator[Journal]:
    """Record calls. The journal is complete after the block, also if the block raises. Blocks cannot be nested."""
    library = ctypes.CDLL(None)
    library.fakecuda_journal.restype = ctypes.c_char_p
    journal = Journal()
    library.fakecuda_open_journal()
    try:
        yield journal
    finally:
        library.fakecuda_close_journal()
        journal.records += map(_parse, library.fakecuda_journal().decode().splitlines())


def mark(name: str) -> None:
    """Write a line of one's own, to find a place in the journal."""
    ctypes.CDLL(None).fakecuda_mark(name.encode())


def _parse(line: str) -> Record:
    kind, device, stream, capture, name, detail = line.split("\t")
    assert kind in get_args(Kind), kind
    is_number = detail.isdigit()
    return Record(
        kind=cast(Kind, kind),
        device=int(device),
        stream=int(stream) if int(stream) >= 0 else None,
        capture=int(capture) or None,
        name=name,
        detail="" if is_number else detail,
        count=int(detail) if is_number else 0,
    )

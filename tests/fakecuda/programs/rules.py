"""What the stand-in permits, with two devices: rules of captures, of streams and of devices."""

import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch import Tensor

from fakecuda.cases import print_outcomes
from fakecuda.journal import record

DEVICE = torch.device("cuda:0")


def capture(function: Callable[[], object]) -> Mapping[str, Any]:
    """Capture a function and replay it; the error of the capture, its number of nodes and the reason of its end."""
    graph = torch.cuda.CUDAGraph()
    message = ""
    with record() as journal:
        try:
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                function()
            graph.replay()
        except RuntimeError as error:
            message = str(error).partition("\n")[0]
    (recording,) = journal.captures
    return {
        "message": message,
        "code": recording.error,
        "reason": recording.reason,
        "nodes": len(recording.nodes),
        "replays": [replay.count for replay in journal.replays],
    }


def call(function: Callable[[], object]) -> Mapping[str, Any]:
    """Call a function; the message of its error, and the number of its records of each kind."""
    message = ""
    with record() as journal:
        try:
            function()
        except RuntimeError as error:
            message = str(error).partition("\n")[0]
    return {"message": message, "counts": journal.counts(), "waits": len(journal.waits)}


class Work:
    """Functions that put work on streams."""

    def __init__(self) -> None:
        self.images = torch.ones(8, 8, device=DEVICE)
        self.side, self.other = (torch.cuda.Stream(DEVICE) for _ in range(2))
        for stream in (self.side, self.other):  # allocates memory there, which a capture must not do
            with torch.cuda.stream(stream):
                self.add()
        self.add()
        self.before = torch.cuda.Event()
        self.before.record()

    def add(self) -> Tensor:
        return self.images + 1

    def fork(self, stream: torch.cuda.Stream, *, join: bool) -> None:
        """Add on another stream as well."""
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self.add()
        self.add()
        if join:
            torch.cuda.current_stream().wait_stream(stream)

    def fork_and_join_twice(self) -> None:
        self.fork(self.side, join=True)
        self.fork(self.other, join=True)

    def join_through_another_stream(self) -> None:
        self.fork(self.side, join=False)
        self.other.wait_stream(self.side)
        torch.cuda.current_stream().wait_stream(self.other)

    def work_after_the_join(self) -> None:
        self.fork(self.side, join=True)
        with torch.cuda.stream(self.side):
            self.add()

    def fork_without_work(self) -> None:
        self.side.wait_stream(torch.cuda.current_stream())
        self.add()

    def wait_for_uncaptured_work(self) -> None:
        torch.cuda.current_stream().wait_event(self.before)

    def synchronize(self) -> None:
        torch.cuda.current_stream().synchronize()

    def read_value(self) -> None:
        float(self.add().sum())

    def query_captured_event(self) -> None:
        event = torch.cuda.Event()
        event.record()
        event.query()

    def draw_and_drop_out(self) -> None:
        torch.dropout(torch.randn(8, 8, device=DEVICE), 0.5, True)

    def all_reduce(self) -> None:
        torch.distributed.all_reduce(self.images)

    def record_event_of_other_device(self) -> None:
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(DEVICE))
        event.record(torch.cuda.current_stream("cuda:1"))

    def read(self) -> None:
        self.images.cpu()

    def copy_between_devices(self) -> None:
        self.images.to("cuda:1")

    def convolve(self) -> None:
        torch.conv2d(torch.ones(1, 3, 8, 8, device="cuda:1"), torch.ones(4, 3, 3, 3, device="cuda:1"))


def main() -> None:
    torch.cuda.set_device(DEVICE)
    with tempfile.TemporaryDirectory() as folder:
        store = torch.distributed.FileStore(str(Path(folder) / "store"), 1)
        torch.distributed.init_process_group("nccl", store=store, world_size=1, rank=0, device_id=DEVICE)
        work = Work()
        work.all_reduce()
        captures = {
            "one stream": work.add,
            "fork and join": partial(work.fork, work.side, join=True),
            "fork and join twice": work.fork_and_join_twice,
            "join through another stream": work.join_through_another_stream,
            "fork without work": work.fork_without_work,
            "random numbers": work.draw_and_drop_out,
            "all_reduce": work.all_reduce,
            "no join": partial(work.fork, work.side, join=False),
            "work after the join": work.work_after_the_join,
            "uncaptured work": work.wait_for_uncaptured_work,
            "synchronize": work.synchronize,
            "read a value": work.read_value,
            "query an event": work.query_captured_event,
            "one stream, after errors": work.add,
        }
        calls = {
            "random numbers, after errors": work.draw_and_drop_out,
            "event of another device": work.record_event_of_other_device,
            "read": work.read,
            "copy between devices": work.copy_between_devices,
            "convolve on the second device": work.convolve,
        }
        print_outcomes(
            {name: partial(capture, function) for name, function in captures.items()}
            | {name: partial(call, function) for name, function in calls.items()}
        )
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()

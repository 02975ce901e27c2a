"""Time training steps while other processes use the cores, with OpenMP's defaults and with those of gantoolkit.

    python -m benchmarks.busy --out benchmarks/results/busy-cpu.json

Each setting is a process of its own; they take turns. First nothing else runs, then a number of processes that only count.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

from benchmarks.timing import alternate, describe_machine, medians, write_result
from gantoolkit.recipes import cyclegan
from gantoolkit.training import build_trainer

CPU = torch.device("cpu")

SETTINGS = {
    "OpenMP's defaults": {"GOMP_SPINCOUNT": "300000"},  # that of libgomp without a wait policy
    "gantoolkit's": {},
    "gantoolkit's, one thread": {"OMP_NUM_THREADS": "1"},
}


class Worker:
    """A process that takes one training step for each line that it reads."""

    def __init__(self, environment: dict[str, str], side: int) -> None:
        variables = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
        command = [sys.executable, "-m", "benchmarks.busy", "--worker", "--side", str(side)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, env={**variables, **environment}, **pipes)

    def step(self) -> None:
        """Take a step, and wait for its end."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("step\n")
        self.process.stdin.flush()
        if not self.process.stdout.readline():
            raise SystemExit("a worker ended")

    def close(self) -> None:
        """End the process."""
        self.process.communicate()


def work(side: int) -> None:
    """Take steps, as a `Worker` asks for them."""
    trainer = build_trainer(cyclegan().swap({"data.load_size": side, "data.crop_size": side}).resolve(), CPU)
    trainer.begin_epoch(0)
    images = {domain: torch.rand(1, 3, side, side) * 2 - 1 for domain in "AB"}
    for number, _ in enumerate(sys.stdin):
        trainer.step(images, number)
        print("done", flush=True)


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Run processes that use a core each, until they lose their parent."""
    code = "import os; parent = os.getppid()\nwhile os.getppid() == parent: pass"
    processes = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(count)]
    try:
        time.sleep(1)
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def main() -> None:
    """Measure, and print the result as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="number of other processes")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.side)
        return
    seconds: dict[str, dict[str, list[float]]] = {}
    with ExitStack() as stack:
        workers = {name: Worker(environment, arguments.side) for name, environment in SETTINGS.items()}
        steps: dict[str, Any] = {name: worker.step for name, worker in workers.items()}
        for worker in workers.values():
            stack.callback(worker.close)
        seconds["quiet"] = alternate(steps, CPU, rounds=arguments.rounds)
        with busy(arguments.processes):
            seconds["busy"] = alternate(steps, CPU, rounds=arguments.rounds)
    result = {
        "what": "training step of CycleGAN on shared cores",
        "side": arguments.side,
        "processes": arguments.processes,
        **describe_machine(CPU),
        "load": {state: medians(times) for state, times in seconds.items()},
        "seconds": {
            state: {name: [round(t, 5) for t in ts] for name, ts in each.items()} for state, each in seconds.items()
        },
    }
    write_result(result, arguments.out)


if __name__ == "__main__":
    main()

"""Time training steps of CycleGAN with our implementation and the official one, alternating in one process.

    python -m benchmarks.training --peer DIR --rounds 5 --out benchmarks/results/training-cpu.json

Both use ResNet generators with 9 blocks, 70×70 PatchGAN discriminators, LSGAN, pools of 50, Adam, and the same random images, a
new batch each step. Without --peer, only ours is timed. The first steps of each are not timed; they fill caches, choose
algorithms and record graphs. On CUDA the official code is timed twice, see `benchmarks.peer`. On a CPU, peak memory is measured
in a process per variant, see `benchmarks.growth`.
"""

import argparse
import gc
import itertools
import json
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks.peer import load_peer, peer_flags, peer_names, step_peer
from benchmarks.rows import record
from benchmarks.timing import alternate, describe_machine, medians, speedups, write_result
from gantoolkit.cost.timing import synchronize
from gantoolkit.recipes import cyclegan
from gantoolkit.runtime.device import select_device
from gantoolkit.runtime.precision import backend_flags
from gantoolkit.training import build_trainer
from gantoolkit.training.capture import CapturedStep

__all__ = ["WARM_UP", "MemoryPeaks", "peer_steps", "random_batches", "steps_of", "summarize", "warm_up"]

WARM_UP = 5
"""Calls before timing of a captured step, which is recorded in its fourth call, and on CUDA; otherwise one is enough."""

ROUNDS_PER_ROW = 3
"""A result is recorded after each block of so many rounds."""

ON_CPU = ("fp32", "bf16")
ON_CUDA = ("fp32", "tf32", "bf16", "fp16", "tf32 captured", "bf16 captured", "fp16 captured")
"""Compiled variants take minutes, so they are not among the defaults."""


def random_batches(side: int, batch: int, device: torch.device, count: int = 4) -> Iterator[dict[str, torch.Tensor]]:
    """Yield batches of random images, never the same twice in a row."""
    generator = torch.Generator().manual_seed(0)
    batches = [
        {domain: (torch.rand(batch, 3, side, side, generator=generator) * 2 - 1).to(device) for domain in "AB"}
        for _ in range(count)
    ]
    return itertools.cycle(batches)


def steps_of(variant: str, side: int, batch: int, identity: bool, device: torch.device) -> Callable[[], Any]:
    """Create a function that runs one step; a variant is a precision, optionally with `compiled` and `captured`."""
    precision, *flags = variant.split()
    recipe = cyclegan(identity_weight=5.0 if identity else 0.0).swap(
        {
            "training.precision": precision,
            "training.compile": "compiled" in flags,
            "data.load_size": side,
            "data.crop_size": side,
        }
    )
    trainer = build_trainer(recipe.resolve(), device)
    trainer.begin_epoch(0)
    captured = CapturedStep(trainer, warn=False) if "captured" in flags else None
    batches, indices = random_batches(side, batch, device), itertools.count()

    def run_step() -> None:
        with backend_flags(trainer.precision, try_algorithms=True, compiles="compiled" in flags):
            (captured or trainer.step)(next(batches), next(indices))
        if captured and captured.problem:
            raise RuntimeError(f"it cannot be captured: {captured.problem}")

    return run_step


def peer_steps(
    folder: Path, side: int, batch: int, identity: bool, device: torch.device
) -> dict[str, Callable[[], Any]]:
    """Functions that run one step of the official code, by name; on a CPU there is one."""
    peer = load_peer(folder, device, identity=identity)
    batches = random_batches(side, batch, device)

    def step(name: str) -> None:
        with peer_flags(name):
            step_peer(peer, next(batches))

    return {name: lambda name=name: step(name) for name in peer_names(device)}


def growth_of(name: str, arguments: argparse.Namespace) -> float:
    """The megabytes by which a new process grows for the steps of a variant on a CPU, or of `peer`."""
    command = [sys.executable, "-m", "benchmarks.growth", name, "--side", arguments.side, "--batch", arguments.batch]
    command += ["--no-identity"] if arguments.no_identity else []
    command += ["--peer", arguments.peer] if name == "peer" else []
    process = subprocess.run([str(word) for word in command], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(process.stdout)


class MemoryPeaks:
    """Measures the CUDA memory of one variant after another, in megabytes beside what the others hold."""

    def __init__(self, device: torch.device) -> None:
        self.allocated: dict[str, float] = {}
        self.reserved: dict[str, float] = {}
        self._is_cuda, self._device = device.type == "cuda", device
        self._before = (0, 0)

    def start(self) -> None:
        """Measure from here on."""
        if self._is_cuda:
            torch.cuda.empty_cache()
            self._before = torch.cuda.memory_allocated(self._device), torch.cuda.memory_reserved(self._device)

    def restart_peak(self) -> None:
        """Leave out what was allocated until now for trying algorithms."""
        if self._is_cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self._device)

    def read(self, name: str) -> None:
        """Note the peak of a variant. A graph replays in memory that was reserved when it was captured."""
        if self._is_cuda:
            peaks = torch.cuda.max_memory_allocated(self._device), torch.cuda.max_memory_reserved(self._device)
            self.allocated[name], self.reserved[name] = (
                round((peak - before) / 1e6, 1) for peak, before in zip(peaks, self._before, strict=True)
            )


def warm_up(step: Callable[[], Any], calls: int, device: torch.device, memory: MemoryPeaks) -> list[float]:
    """Run the first steps; return the seconds of each. Memory is measured from the third on."""
    seconds: list[float] = []
    for call in range(calls):
        if call == 2:
            memory.restart_peak()
        start = time.perf_counter()
        step()
        synchronize(device)
        seconds.append(time.perf_counter() - start)
    return seconds


def measure(arguments: argparse.Namespace, variants: tuple[str, ...], device: torch.device) -> dict[str, Any]:
    """Measure times, ratios to the official implementation, and memory for one size and batch."""
    functions: dict[str, Callable[[], Any]] = {}
    memory = MemoryPeaks(device)
    failed: dict[str, str] = {}
    side, batch, identity = arguments.side, arguments.batch, not arguments.no_identity

    def prepare(name: str, function: Callable[[], Any]) -> None:
        calls = WARM_UP if "captured" in name or device.type == "cuda" else 1
        seconds = warm_up(function, calls, device, memory)
        memory.read(name)
        if device.type == "cpu":
            memory.allocated[name] = growth_of(name, arguments)
        functions[name] = function
        row = {"variant": name, "warm_up_seconds": [round(value, 5) for value in seconds]}
        peaks = {"peak_megabytes": memory.allocated.get(name), "reserved_megabytes": memory.reserved.get(name)}
        record({**row, **peaks}, f"{name}: {1000 * seconds[-1]:.1f} ms in the last step before timing")

    def describe(seconds: Mapping[str, list[float]]) -> dict[str, Any]:
        return describe_steps(arguments, device, seconds, memory, failed)

    memory.start()
    peers = {} if arguments.peer is None else peer_steps(arguments.peer, side, batch, identity, device)
    for variant in (*peers, *variants):
        if variant not in peers:
            memory.start()
        try:
            prepare(variant, peers.get(variant) or steps_of(variant, side, batch, identity, device))
        except Exception as error:  # a variant may be unsupported on this machine; measure the others
            traceback.print_exc()
            failed[variant] = str(error).partition("\n")[0]
            record({"variant": variant, "error": failed[variant]})
            gc.collect()

    def record_round(seconds: Mapping[str, list[float]]) -> None:
        if len(next(iter(seconds.values()))) % ROUNDS_PER_ROW == 0:
            result = describe(seconds)
            record(result, summarize(result))

    return describe(alternate(functions, device, rounds=arguments.rounds, calls=arguments.calls, on_round=record_round))


def describe_steps(
    arguments: argparse.Namespace,
    device: torch.device,
    seconds: Mapping[str, list[float]],
    memory: MemoryPeaks,
    failed: Mapping[str, str],
) -> dict[str, Any]:
    """The result of the rounds so far."""
    milliseconds = medians(seconds)
    result: dict[str, Any] = {
        "what": "training step of CycleGAN",
        "side": arguments.side,
        "batch": arguments.batch,
        "identity": not arguments.no_identity,
        **describe_machine(device),
        "median_milliseconds": milliseconds,
        "pairs_per_second": {name: round(1000 * arguments.batch / value, 3) for name, value in milliseconds.items()},
        **speedups(milliseconds),
    }
    if memory.allocated:
        result["peak_megabytes"] = dict(memory.allocated)
    if memory.reserved:
        result["reserved_megabytes"] = dict(memory.reserved)
    if failed:
        result["failed"] = dict(failed)
    return result | {"seconds": {name: [round(t, 5) for t in times] for name, times in seconds.items()}}


def summarize(result: Mapping[str, Any]) -> str:
    """The rates of a result in one line, with their ratio to the official code."""
    rates = result.get("pairs_per_second", result.get("images_per_second", {}))
    ratios = result.get("times_as_fast_as_peer", {})
    parts = [
        f"{name} {rate:.1f}" + (f" ({ratios[name]:.2f}×)" if name in ratios else "") for name, rate in rates.items()
    ]
    failures = [f"{name} FAILED" for name in result.get("failed", {})]
    return f"{'pairs' if 'pairs_per_second' in result else 'images'}/s: {', '.join([*parts, *failures])}"


def main() -> int:
    """Measure one size and batch, and print the result as JSON. Return 1 if a variant failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, help="folder of the official implementation")
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--no-identity", action="store_true", help="disable the identity terms")
    parser.add_argument(
        "--variants", nargs="+", help="precisions, each optionally with compiled and captured, in quotes"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=1, help="number of steps timed together")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    device = select_device(arguments.device)
    variants = tuple(arguments.variants or (ON_CUDA if device.type == "cuda" else ON_CPU))
    result = measure(arguments, variants, device)
    write_result(result, arguments.out, summarize(result))
    return int("failed" in result)


if __name__ == "__main__":
    sys.exit(main())

"""Time training steps of CycleGAN with our implementation and the official one, alternating in one process.

    python -m benchmarks.training --peer DIR --rounds 5 --out benchmarks/results/training-cpu.json

Both use ResNet generators with 9 blocks, 70×70 PatchGAN discriminators, LSGAN, pools of 50, Adam, and the same random images, a
new batch each step. Without --peer, only ours is timed. The first steps of each are not timed; they fill caches and record
graphs.
"""

import argparse
import gc
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from benchmarks.peer import load_peer, step_peer
from benchmarks.timing import alternate, describe_machine, medians, write_result
from gantoolkit.recipes import cyclegan
from gantoolkit.runtime.device import select_device
from gantoolkit.runtime.precision import backend_flags
from gantoolkit.training import build_trainer
from gantoolkit.training.capture import CapturedStep

__all__ = ["main", "random_batches", "steps_of"]

WARM_UP = 5
"""Calls before timing: a captured step is recorded in its fourth call."""

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
    step = CapturedStep(trainer) if "captured" in flags else trainer.step
    batches, indices = random_batches(side, batch, device), itertools.count()

    def run_step() -> None:
        with backend_flags(trainer.precision, try_algorithms=True):
            trainer.begin_epoch(0)
            step(next(batches), next(indices))

    return run_step


@contextmanager
def peak_memory(device: torch.device, peaks: dict[str, float], name: str) -> Iterator[None]:
    """Record the peak of CUDA memory allocated inside the context, in megabytes."""
    if device.type != "cuda":
        yield
        return
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    try:
        yield
    finally:
        peaks[name] = round((torch.cuda.max_memory_allocated(device) - before) / 1e6, 1)


def measure(arguments: argparse.Namespace, variants: tuple[str, ...], device: torch.device) -> dict[str, Any]:
    """Measure times, ratios to the official implementation, and memory for one size and batch."""
    functions: dict[str, Callable[[], Any]] = {}
    memory: dict[str, float] = {}
    failed: dict[str, str] = {}
    side, batch, identity = arguments.side, arguments.batch, not arguments.no_identity
    if arguments.peer is not None:
        with peak_memory(device, memory, "peer"):
            peer = load_peer(arguments.peer, device, identity=identity)
            batches = random_batches(side, batch, device)
            functions["peer"] = lambda: step_peer(peer, next(batches))
            for _ in range(2):
                functions["peer"]()
    for variant in variants:
        with peak_memory(device, memory, variant):
            try:
                step = steps_of(variant, side, batch, identity, device)
                for _ in range(WARM_UP if "captured" in variant else 1):
                    step()
            except Exception as error:  # a variant may be unsupported on this machine; measure the others
                failed[variant] = str(error).partition("\n")[0]
                gc.collect()
                continue
            functions[variant] = step
    seconds = alternate(functions, device, rounds=arguments.rounds, calls=arguments.calls, warm_up=1)
    milliseconds = medians(seconds)
    result: dict[str, Any] = {
        "what": "training step of CycleGAN",
        "side": side,
        "batch": batch,
        "identity": identity,
        **describe_machine(device),
        "median_milliseconds": milliseconds,
        "pairs_per_second": {name: round(1000 * batch / value, 3) for name, value in milliseconds.items()},
    }
    if "peer" in milliseconds:
        result["times_as_fast_as_peer"] = {
            name: round(milliseconds["peer"] / value, 3) for name, value in milliseconds.items() if name != "peer"
        }
    if memory:
        result["peak_megabytes"] = memory
    if failed:
        result["failed"] = failed
    return result | {"seconds": {name: [round(t, 5) for t in times] for name, times in seconds.items()}}


def main() -> None:
    """Measure one size and batch, and print the result as JSON."""
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
    write_result(measure(arguments, variants, device), arguments.out)


if __name__ == "__main__":
    main()

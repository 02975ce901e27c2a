"""Measure by how many megabytes this process grows for training steps on a CPU, as `benchmarks.training` runs them.

    python -m benchmarks.growth bf16 --side 256

The growth is that of the process's resident memory at its largest: networks, optimizers, images and what libraries and the
allocator keep. The first step is left out, in which libraries try algorithms.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.training import peer_steps, steps_of
from gantoolkit.cost.memory_meter import MemoryMeter

STEPS = 2


def measure_growth(create: Callable[[], Callable[[], Any]]) -> float:
    """Create a step and run it; returns megabytes."""
    meter = MemoryMeter(torch.device("cpu"))
    step = create()
    step()
    meter.restart()
    for _ in range(STEPS):
        step()
    growth = meter.read()
    if growth is None:
        raise SystemExit("this system does not report the memory of a process")
    return round(growth / 1e6, 1)


def main() -> None:
    """Measure one variant, and print the megabytes as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("variant", help="a precision, or peer")
    parser.add_argument("--peer", type=Path, help="folder of the official implementation")
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--no-identity", action="store_true", help="disable the identity terms")
    arguments = parser.parse_args()
    size = (arguments.side, arguments.batch, not arguments.no_identity, torch.device("cpu"))
    if arguments.variant == "peer":
        growth = measure_growth(lambda: peer_steps(arguments.peer, *size)["peer"])
    else:
        growth = measure_growth(lambda: steps_of(arguments.variant, *size))
    print(json.dumps(growth))


if __name__ == "__main__":
    main()

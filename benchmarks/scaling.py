"""Measure how time and memory of a training step grow with the image size, each size in its own process.

    python -m benchmarks.scaling --sides 128 256 512 --out benchmarks/results/scaling-cpu.json

Time per pixel should be constant. Memory should grow linearly with the pixels, apart from weights and optimizer states.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks.timing import alternate, describe_machine, medians, write_result
from benchmarks.training import WARM_UP, MemoryPeaks, steps_of, warm_up
from gantoolkit.runtime.device import select_device


def measure_here(side: int, variant: str, rounds: int, device: torch.device) -> dict[str, float]:
    """Measure milliseconds and peak megabytes of one size in this process; on a CPU, the memory of the whole process."""
    memory = MemoryPeaks(device)
    memory.start()
    step = steps_of(variant, side, 1, True, device)
    warm_up(step, WARM_UP if device.type == "cuda" else 1, device, memory)
    seconds = alternate({variant: step}, device, rounds=rounds)
    if device.type == "cuda":
        memory.read(variant)
        peak = memory.allocated[variant]
    else:
        status = Path("/proc/self/status").read_text().splitlines()
        (line,) = [line for line in status if line.startswith("VmHWM:")]
        peak = int(line.split()[1]) / 1e3
    return {"milliseconds": medians(seconds)[variant], "peak_megabytes": round(peak, 1)}


def main() -> None:
    """Measure every size, and print the result as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="+", default=[128, 256, 512])
    parser.add_argument("--variant", default="fp32", help="a precision, optionally with captured")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    device = select_device(arguments.device)
    if arguments.one is not None:
        print(json.dumps(measure_here(arguments.one, arguments.variant, arguments.rounds, device)))
        return
    results: dict[int, Any] = {}
    for side in arguments.sides:
        command = [sys.executable, "-m", "benchmarks.scaling", "--one", str(side), "--variant", arguments.variant]
        command += ["--rounds", str(arguments.rounds), "--device", str(device)]
        completed = subprocess.run(command, capture_output=True, text=True, check=True)
        results[side] = json.loads(completed.stdout.splitlines()[-1])
        results[side]["nanoseconds_per_pixel"] = round(1e6 * results[side]["milliseconds"] / side**2, 1)
    write_result(
        {"what": "one training step", "variant": arguments.variant, **describe_machine(device), "sides": results},
        arguments.out,
    )


if __name__ == "__main__":
    main()

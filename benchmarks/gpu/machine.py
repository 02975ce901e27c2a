"""Describe the CUDA device, and measure its limits: bandwidth of a copy, rate of a matrix product, time of a launch."""

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.kernels import clock, measure_copy
from benchmarks.rows import record
from benchmarks.timing import describe_machine

LAUNCHES = 2000


def describe_device() -> dict[str, Any]:
    """Name, versions and memory of the current CUDA device."""
    import triton

    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    free, total = torch.cuda.mem_get_info()
    return {
        **describe_machine(torch.device("cuda")),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "triton": triton.__version__,
        "capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "free_gigabytes": round(free / 1e9, 1),
        "total_gigabytes": round(total / 1e9, 1),
    }


def measure_limits(rounds: int, side: int) -> dict[str, float]:
    """Measure bytes per second, operations per second and microseconds per launch, on random numbers."""

    def median(run: Callable[[], object]) -> float:
        run()
        return statistics.median(clock(run) for _ in range(rounds))

    factors = [torch.randn(side, side, device="cuda", dtype=torch.bfloat16) for _ in range(2)]
    small = torch.zeros(4, device="cuda")
    matmul = median(lambda: factors[0] @ factors[1])
    launches = median(lambda: [small.add_(1) for _ in range(LAUNCHES)])
    return {
        "copy_gigabytes_per_second": round(measure_copy(rounds) / 1e9, 1),
        "bf16_teraflops": round(2 * side**3 / matmul / 1e12, 1),
        "microseconds_per_launch": round(1e6 * launches / LAUNCHES, 3),
    }


def main() -> None:
    """Record one row, and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, for a rehearsal")
    arguments = parser.parse_args()
    device = describe_device()
    record(device, device["device"])
    limits = measure_limits(*((1, 256) if arguments.quick else (9, 8192)))
    print({**device, **limits})
    record(
        {**device, **limits},
        f"{device['device']}, torch {device['torch']}, Triton {device['triton']}: copy "
        f"{limits['copy_gigabytes_per_second'] / 1e3:.2f} TB/s, bf16 {limits['bf16_teraflops']:.0f} TFLOP/s, "
        f"{limits['microseconds_per_launch']:.1f} µs per launch",
    )


if __name__ == "__main__":
    main()

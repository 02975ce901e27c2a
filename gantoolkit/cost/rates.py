"""How fast a device multiplies matrices: the rate that a step's work is held against."""

import statistics
import time
from dataclasses import dataclass

import torch

from gantoolkit.runtime.precision import Precision, arithmetic

__all__ = ["MatrixRate", "measure_matrix_rate", "synchronize"]

_LONG_ENOUGH_S = 0.05
_LARGEST_SIDE = 16384
_ROUNDS = 5
_DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class MatrixRate:
    """The median rate of a square matrix product.

    Args:
        flops_per_second: Two operations for each multiplication with its addition.
        side: Rows and columns of the matrices.
        arithmetic: fp32, tf32, bf16 or fp16.
    """

    flops_per_second: float
    side: int
    arithmetic: str


def measure_matrix_rate(device: torch.device, precision: Precision = "fp32") -> MatrixRate:
    """Multiply square matrices of random numbers, larger and larger until one product takes long enough to be timed."""
    with arithmetic(precision, try_algorithms=False):
        side, generator = 512, torch.Generator(device).manual_seed(0)
        while True:
            drawn = (torch.rand(side, side, device=device, generator=generator) for _ in range(2))
            matrices = [matrix.to(_DTYPES[precision]) for matrix in drawn]
            _time_product(*matrices)
            seconds = _time_product(*matrices)
            if seconds >= _LONG_ENOUGH_S or side == _LARGEST_SIDE:
                break
            side *= 2
        median = statistics.median([seconds, *(_time_product(*matrices) for _ in range(_ROUNDS - 1))])
    return MatrixRate(2 * side**3 / median, side, precision)


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was told to."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _time_product(left: torch.Tensor, right: torch.Tensor) -> float:
    synchronize(left.device)
    began = time.perf_counter()
    torch.mm(left, right)
    synchronize(left.device)
    return time.perf_counter() - began

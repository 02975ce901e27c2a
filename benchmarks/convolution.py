"""Measure from which sizes on Winograd's algorithm is faster than direct 3×3 convolution on this CPU.

    python -m benchmarks.convolution --out convolution.json

`gantoolkit.layers.convolution` uses it from the sizes on where forward and backward pass together were faster.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.timing import alternate, describe_machine, write_result
from gantoolkit.layers.kernels.cpu_winograd import winograd_convolution

CPU = torch.device("cpu")


def measure(channels: int, side: int, dtype: torch.dtype, rounds: int) -> dict[str, Any]:
    """Measure the milliseconds of both passes with each algorithm, and their ratio."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(1, channels, side + 2, side + 2, generator=generator).to(dtype)
    features = features.contiguous(memory_format=torch.channels_last).requires_grad_()
    weight = (0.02 * torch.randn(channels, channels, 3, 3, generator=generator)).requires_grad_()

    def step(convolve: Callable[[Tensor, Tensor], Tensor]) -> Callable[[], Any]:
        return lambda: torch.autograd.grad(convolve(features, weight).float().sum(), (features, weight))

    algorithms = {"plain": step(lambda x, w: functional.conv2d(x, w.to(dtype))), "winograd": step(winograd_convolution)}
    # The minimum, since other processes can only lengthen times.
    best = {name: 1000 * min(times) for name, times in alternate(algorithms, CPU, rounds=rounds, warm_up=2).items()}
    return {
        "channels": channels,
        "side": side,
        "type": str(dtype).removeprefix("torch."),
        **{name: round(value, 2) for name, value in best.items()},
        "ratio": round(best["plain"] / best["winograd"], 2),
    }


def main() -> None:
    """Measure a grid of sizes in both dtypes, and print the result as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--channels", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--sides", type=int, nargs="+", default=[16, 32, 64])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    sizes = [
        measure(channels, side, dtype, arguments.rounds)
        for dtype in (torch.float32, torch.bfloat16)
        for channels in arguments.channels
        for side in arguments.sides
    ]
    write_result({"what": "3×3 convolution, both passes", **describe_machine(CPU), "sizes": sizes}, arguments.out)


if __name__ == "__main__":
    main()

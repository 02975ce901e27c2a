"""How long instance norm, ReLU and reflection padding take on a CUDA device, and what share of its bandwidth they use.

    python -m benchmarks.kernels --out kernels.json

Shapes are those of the ResNet generator with 9 blocks for 256×256 images. Four ways alternate: `plain`, ATen's operators on
(N, C, H, W) as it lies by default; `channels_last`, the same on channels_last, with the result brought back to it for the
next convolution; `compiled`, that by torch.compile; `fused`, `gantoolkit.layers.kernels`. Each is first compared with float64. Times
are of CUDA graphs over inputs that together exceed the cache, and of the same calls without a graph (`eager`). The floor
counts every input read once and every result written once, at the rate of a large copy.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from gantoolkit.layers.kernels import can_fuse, reference

SHAPES = ((64, 256, 3), (128, 128, 0), (256, 64, 1))
"""Channels, side in pixels, and the padding that comes next."""
BATCHES = (1, 2, 16)
TOLERANCE = {torch.bfloat16: 2e-2, torch.float32: 1e-4}
COLD_BYTES = 128 * 2**20
"""Inputs of one graph, together: more than twice the cache of an H100."""

Norm = Callable[[Tensor], Tensor]
Pass = Callable[[Tensor, Tensor], Sequence[Tensor]]


class Way(NamedTuple):
    """A way to compute, and how its tensors lie in memory."""

    norm: Norm
    layout: torch.memory_format


def main() -> int:
    """Check, measure and print as JSON; 1 when a result is wrong, 2 without a CUDA device and Triton."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="also write the JSON there")
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("benchmarks.kernels measures CUDA kernels, and torch finds no CUDA device here", file=sys.stderr)
        return 2
    began = time.perf_counter()
    probe = torch.zeros(1, 8, 8, 8, device="cuda").contiguous(memory_format=torch.channels_last)
    if not can_fuse(probe):
        print(
            "the fused kernels are off or do not work here; see gantoolkit.layers.kernels.has_kernels", file=sys.stderr
        )
        return 2
    import triton

    peak = measure_copy(arguments.rounds)
    rows: list[dict[str, Any]] = []
    for dtype in TOLERANCE:
        for channels, side, pad in SHAPES:
            torch.compiler.reset()
            ways = make_ways(pad)
            for batch in BATCHES:
                rows += measure((batch, channels, side, side), pad, dtype, ways, peak, arguments.rounds)
    result = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "copy_gigabytes_per_second": round(peak / 1e9),
        "seconds": round(time.perf_counter() - began, 1),
        "rows": rows,
    }
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")
    wrong = [row for row in rows if row["way"] == "fused" and not row["error"] <= row["tolerance"]]
    for row in wrong:
        print(f"wrong: {row['shape']} {row['dtype']} differs from float64 by {row['error']}", file=sys.stderr)
    return int(bool(wrong))


def make_ways(pad: int) -> dict[str, Way]:
    from gantoolkit.layers.kernels.triton_instance_norm import fused_instance_norm

    def aten(features: Tensor) -> Tensor:
        made = functional.relu(functional.instance_norm(features))
        return functional.pad(made, [pad] * 4, mode="reflect") if pad else made

    def aten_in_channels_last(features: Tensor) -> Tensor:
        return aten(features).contiguous(memory_format=torch.channels_last)

    return {
        "plain": Way(aten, torch.contiguous_format),
        "channels_last": Way(aten_in_channels_last, torch.channels_last),
        "compiled": Way(torch.compile(aten_in_channels_last), torch.channels_last),
        "fused": Way(lambda features: fused_instance_norm(features, slope=0.0, pad=pad), torch.channels_last),
    }


def measure(
    shape: tuple[int, int, int, int], pad: int, dtype: torch.dtype, ways: dict[str, Way], peak: float, rounds: int
) -> list[dict[str, Any]]:
    """One row for each way and each pass, `forward` and `both`."""
    images, channels, height, width = shape
    padded = (images, channels, height + 2 * pad, width + 2 * pad)
    inside, outside = (torch.Size(size).numel() * dtype.itemsize for size in (shape, padded))
    floors = {"forward": (inside + outside) / peak, "both": (3 * inside + 2 * outside) / peak}
    sets = max(4, -(-COLD_BYTES // inside))
    errors = {name: find_error(way, shape, padded, dtype, pad) for name, way in ways.items()}
    runs: dict[tuple[str, str, str], Callable[[], None]] = {}
    for name, way in ways.items():
        features = [
            torch.randn(shape, device="cuda", dtype=dtype).contiguous(memory_format=way.layout) for _ in range(sets)
        ]
        gradient = torch.randn(padded, device="cuda", dtype=dtype).contiguous(memory_format=way.layout)
        for direction, call in (("forward", forward(way.norm)), ("both", forward_and_backward(way.norm))):
            eager = repeat(call, features, gradient)
            runs[name, direction, "eager"] = eager
            runs[name, direction, "graph"] = capture(eager)
    times: dict[tuple[str, str, str], list[float]] = {key: [] for key in runs}
    for _ in range(rounds):
        for key, run in runs.items():
            times[key].append(clock(run) / sets)
    medians = {key: statistics.median(values) for key, values in times.items()}
    return [
        {
            "shape": list(shape),
            "pad": pad,
            "dtype": str(dtype).removeprefix("torch."),
            "way": name,
            "pass": direction,
            "milliseconds": round(1e3 * medians[name, direction, "graph"], 5),
            "eager_milliseconds": round(1e3 * medians[name, direction, "eager"], 5),
            "share_of_bandwidth": round(floors[direction] / medians[name, direction, "graph"], 3),
            "error": errors[name],
            "tolerance": TOLERANCE[dtype],
        }
        for name in ways
        for direction in floors
    ]


def find_error(way: Way, shape: tuple[int, ...], padded: tuple[int, ...], dtype: torch.dtype, pad: int) -> float:
    """The larger relative distance of result and gradient from those of the plain function in float64."""
    features = torch.randn(shape, device="cuda", dtype=dtype).contiguous(memory_format=way.layout)
    gradient = torch.randn(padded, device="cuda", dtype=dtype).contiguous(memory_format=way.layout)
    made = forward_and_backward(way.norm)(features, gradient)
    exact = forward_and_backward(lambda exact: reference.instance_norm(exact, slope=0.0, pad=pad))
    expected = exact(features.double(), gradient.double())
    distances = [float((a.double() - b).norm() / b.norm()) for a, b in zip(made, expected, strict=True)]
    return max(distances)


def forward(norm: Norm) -> Pass:
    """As in training: what the backward pass needs is kept."""

    def run(features: Tensor, gradient: Tensor) -> Sequence[Tensor]:
        return [norm(features.detach().requires_grad_())]

    return run


def forward_and_backward(norm: Norm) -> Pass:
    def run(features: Tensor, gradient: Tensor) -> Sequence[Tensor]:
        features = features.detach().requires_grad_()
        made = norm(features)
        return [made.detach(), *torch.autograd.grad(made, features, gradient)]

    return run


def repeat(call: Pass, features: Sequence[Tensor], gradient: Tensor) -> Callable[[], None]:
    def run() -> None:
        for each in features:
            call(each, gradient)

    return run


def capture(run: Callable[[], None]) -> Callable[[], None]:
    """A CUDA graph of it; it is compiled and warmed up before."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def clock(run: Callable[[], object]) -> float:
    """Seconds on the device."""
    began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    began.record()
    run()
    ended.record()
    ended.synchronize()
    return began.elapsed_time(ended) / 1e3


def measure_copy(rounds: int) -> float:
    """Bytes a second that a copy of a gigabyte reads and writes."""
    source = torch.randn(2**28, device="cuda")
    target = torch.empty_like(source)
    seconds = [clock(lambda: target.copy_(source)) for _ in range(rounds + 2)]
    return 2 * source.numel() * source.element_size() / statistics.median(seconds[2:])


if __name__ == "__main__":
    sys.exit(main())

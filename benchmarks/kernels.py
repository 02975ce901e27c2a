"""Time instance norm, ReLU and reflection padding on a CUDA device, and compute the share of its bandwidth that they use.

    python -m benchmarks.kernels --out kernels.json

Shapes are those of the ResNet generator with 9 blocks for 256×256 images. The variants alternate: `plain`, ATen's operators on
contiguous tensors; `channels_last`, the same on channels_last, with the result converted to it for the next convolution;
`fused`, `gantoolkit.layers.kernels`; with --compiled, which takes minutes, also `compiled`, the second with torch.compile. Each
is first compared with float64.
Times are those of CUDA graphs over inputs that together exceed the cache, and of the same calls without a graph (`eager`). The
bandwidth counts every input read once and every result written once, relative to a large copy.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.rows import is_wrong, record
from benchmarks.timing import describe_machine, write_result
from gantoolkit.layers.kernels import can_fuse, reference

SHAPES = ((64, 256, 3), (128, 128, 0), (256, 64, 1))
"""Channels, side in pixels, and the padding after the norm."""
BATCHES = (1, 2, 16)
TOLERANCE = {torch.bfloat16: 2e-2, torch.float32: 1e-4}
COLD_BYTES = 128 * 2**20
"""Total size of the inputs of one graph: more than twice the cache of an H100."""

RESOLUTION = 5e-7
"""Seconds that events distinguish at best."""

Norm = Callable[[Tensor], Tensor]
Pass = Callable[[Tensor, Tensor], Sequence[Tensor]]


class Variant(NamedTuple):
    """A function, and the memory format of its tensors."""

    norm: Norm
    memory_format: torch.memory_format


def main() -> int:
    """Check, measure and print JSON. Return 1 if a result is wrong, 2 without a CUDA device or Triton."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="file to write the JSON to")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
    parser.add_argument("--compiled", action="store_true", help="measure torch.compile too")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("benchmarks.kernels: this machine has no CUDA device", file=sys.stderr)
        return 2
    start = time.perf_counter()
    probe = torch.zeros(1, 8, 8, 8, device="cuda").contiguous(memory_format=torch.channels_last)
    if not can_fuse(probe):
        print(
            "the fused kernels are disabled or do not work; see gantoolkit.layers.kernels.has_kernels", file=sys.stderr
        )
        return 2
    import triton

    peak = measure_copy(arguments.rounds)
    rows: list[dict[str, Any]] = []
    for dtype in TOLERANCE:
        for channels, side, pad in SHAPES:
            torch.compiler.reset()
            variants = make_variants(pad, compiled=arguments.compiled)
            for batch in arguments.batches:
                rows += measure((batch, channels, side, side), pad, dtype, variants, peak, arguments.rounds)
                record({"rows": rows[-2 * len(variants) :]}, summarize(rows))
    result = {
        "what": "instance norm, ReLU and reflection padding",
        **describe_machine(torch.device("cuda")),
        "triton": triton.__version__,
        "copy_gigabytes_per_second": round(peak / 1e9),
        "seconds": round(time.perf_counter() - start, 1),
        "rows": rows,
    }
    write_result(result, arguments.out, summarize(rows))
    failures = [row for row in rows if row["way"] == "fused" and not row["error"] <= row["tolerance"]]
    for row in failures:
        print(f"wrong: {row['shape']} {row['dtype']} differs from float64 by {row['error']}", file=sys.stderr)
    return int(is_wrong(bool(failures)))


def summarize(rows: Sequence[dict[str, Any]]) -> str:
    """The share of the bandwidth that the fused kernels use, and their speed relative to ATen's operators on channels_last."""
    both = [row for row in rows if row["pass"] == "both"]
    fused, aten = ([row for row in both if row["way"] == way] for way in ("fused", "channels_last"))
    shares = [row["share_of_bandwidth"] for row in fused]
    ratios = [a["milliseconds"] / max(b["milliseconds"], 1e-9) for a, b in zip(aten, fused, strict=True)]
    return (
        f"fused, both passes, {len(fused)} shapes: {min(shares):.0%} to {max(shares):.0%} of the bandwidth, "
        f"{min(ratios):.1f} to {max(ratios):.1f} times as fast as ATen"
    )


def make_variants(pad: int, *, compiled: bool) -> dict[str, Variant]:
    from gantoolkit.layers.kernels.triton_instance_norm import fused_instance_norm

    def aten(features: Tensor) -> Tensor:
        output = functional.relu(functional.instance_norm(features))
        return functional.pad(output, [pad] * 4, mode="reflect") if pad else output

    def aten_in_channels_last(features: Tensor) -> Tensor:
        return aten(features).contiguous(memory_format=torch.channels_last)

    variants = {
        "plain": Variant(aten, torch.contiguous_format),
        "channels_last": Variant(aten_in_channels_last, torch.channels_last),
        "fused": Variant(lambda features: fused_instance_norm(features, slope=0.0, pad=pad), torch.channels_last),
    }
    if compiled:
        variants["compiled"] = Variant(torch.compile(aten_in_channels_last), torch.channels_last)
    return variants


def measure(
    shape: tuple[int, int, int, int],
    pad: int,
    dtype: torch.dtype,
    variants: dict[str, Variant],
    peak: float,
    rounds: int,
) -> list[dict[str, Any]]:
    """Measure one row per implementation and pass, `forward` and `both`."""
    images, channels, height, width = shape
    padded = (images, channels, height + 2 * pad, width + 2 * pad)
    inside, outside = (torch.Size(size).numel() * dtype.itemsize for size in (shape, padded))
    floors = {"forward": (inside + outside) / peak, "both": (3 * inside + 2 * outside) / peak}
    sets = max(4, -(-COLD_BYTES // inside))
    errors = {name: find_error(variant, shape, padded, dtype, pad) for name, variant in variants.items()}
    runs: dict[tuple[str, str, str], Callable[[], None]] = {}
    for name, variant in variants.items():
        features = [
            torch.randn(shape, device="cuda", dtype=dtype).contiguous(memory_format=variant.memory_format)
            for _ in range(sets)
        ]
        gradient = torch.randn(padded, device="cuda", dtype=dtype).contiguous(memory_format=variant.memory_format)
        for direction, call in (("forward", forward(variant.norm)), ("both", forward_and_backward(variant.norm))):
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
        for name in variants
        for direction in floors
    ]


def find_error(
    variant: Variant, shape: tuple[int, ...], padded: tuple[int, ...], dtype: torch.dtype, pad: int
) -> float:
    """The larger relative error of result and gradient, compared with the reference function in float64."""
    features = torch.randn(shape, device="cuda", dtype=dtype).contiguous(memory_format=variant.memory_format)
    gradient = torch.randn(padded, device="cuda", dtype=dtype).contiguous(memory_format=variant.memory_format)
    results = forward_and_backward(variant.norm)(features, gradient)
    exact = forward_and_backward(lambda exact: reference.instance_norm(exact, slope=0.0, pad=pad))
    expected = exact(features.double(), gradient.double())
    distances = [float((a.double() - b).norm() / b.norm()) for a, b in zip(results, expected, strict=True)]
    return max(distances)


def forward(norm: Norm) -> Pass:
    """The forward pass as in training, which saves tensors for the backward pass."""

    def run(features: Tensor, gradient: Tensor) -> Sequence[Tensor]:
        return [norm(features.detach().requires_grad_())]

    return run


def forward_and_backward(norm: Norm) -> Pass:
    def run(features: Tensor, gradient: Tensor) -> Sequence[Tensor]:
        features = features.detach().requires_grad_()
        output = norm(features)
        return [output.detach(), *torch.autograd.grad(output, features, gradient)]

    return run


def repeat(call: Pass, features: Sequence[Tensor], gradient: Tensor) -> Callable[[], None]:
    def run() -> None:
        for images in features:
            call(images, gradient)

    return run


def capture(run: Callable[[], None]) -> Callable[[], None]:
    """Record `run` as a CUDA graph, after one call to compile and warm up."""
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
    """Measure the seconds of `run` on the device."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    run()
    end.record()
    end.synchronize()
    return max(start.elapsed_time(end) / 1e3, RESOLUTION)


def measure_copy(rounds: int) -> float:
    """Measure the bytes per second that a copy of a gigabyte reads and writes."""
    source = torch.randn(2**28, device="cuda")
    target = torch.empty_like(source)
    seconds = [clock(lambda: target.copy_(source)) for _ in range(rounds + 2)]
    return 2 * source.numel() * source.element_size() / statistics.median(seconds[2:])


if __name__ == "__main__":
    sys.exit(main())

"""Time translations with our generator and the official one, alternating in one process.

    python -m benchmarks.inference --peer DIR --rounds 7 --out benchmarks/results/inference-cpu.json

The ResNet generator with 9 blocks translates random images; ours runs through `Translator`. The result also has the
milliseconds from opening the file to the first image for each variant.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.peer import load_peer, peer_flags, peer_names
from benchmarks.rows import record
from benchmarks.timing import alternate, describe_machine, medians, speedups, write_result
from benchmarks.training import summarize
from gantoolkit.cost.timing import synchronize
from gantoolkit.inference import Translator
from gantoolkit.recipes import cyclegan
from gantoolkit.recipes.building import build_system, initialize
from gantoolkit.runs import write_generator
from gantoolkit.runtime.device import select_device

ON_CPU = ("fp32", "bf16")
ON_CUDA = ("fp32", "tf32", "bf16", "bf16 plain", "fp16")
"""On CUDA, translations replay a graph, except for `plain`."""

WARM_UP = 4
"""Calls before timing; the third may capture a graph."""


def write_one(path: Path) -> None:
    """Write a generator file with initial weights."""
    recipe = cyclegan().resolve()
    system = build_system(recipe)
    initialize(system, recipe)
    write_generator(path, system.directions["A2B"], direction="A2B", recipe=recipe, step=0)


def open_translator(path: Path, variant: str, device: torch.device) -> Translator:
    precision, *flags = variant.split()
    options = {"precision": precision, "compile": "compiled" in flags, "capture": "plain" not in flags}
    return Translator.load(path, device=str(device), **options)  # type: ignore[arg-type]


def measure(arguments: argparse.Namespace, variants: Sequence[str], device: torch.device) -> dict[str, Any]:
    """Measure times and ratios to the official implementation for one size and batch."""
    generator = torch.Generator().manual_seed(0)
    shape = (arguments.batch, 3, arguments.side, arguments.side)
    images = (torch.rand(shape, generator=generator) * 2 - 1).to(device)
    functions: dict[str, Callable[[], Tensor]] = {}
    first_image: dict[str, float] = {}
    if arguments.peer is not None:
        network = load_peer(arguments.peer, device, identity=False).netG_A.eval()

        def translate(name: str) -> Tensor:
            with peer_flags(name), torch.no_grad():
                return network(images)

        functions |= {name: lambda name=name: translate(name) for name in peer_names(device)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "A2B.safetensors"
        write_one(path)
        for variant in variants:
            start = time.perf_counter()
            translator = open_translator(path, variant, device)
            translator.translate_tensor(images[:1])
            synchronize(device)
            first_image[variant] = round(1000 * (time.perf_counter() - start), 1)
            functions[variant] = lambda translator=translator: translator.translate_tensor(images)
            record({"variant": variant, "milliseconds_to_first_image": first_image[variant]})

    def describe(seconds: Mapping[str, list[float]]) -> dict[str, Any]:
        milliseconds = medians(seconds)
        rates = {name: round(1000 * arguments.batch / value, 2) for name, value in milliseconds.items()}
        result: dict[str, Any] = {
            "what": "translation",
            "side": arguments.side,
            "batch": arguments.batch,
            **describe_machine(device),
            "median_milliseconds": milliseconds,
            "images_per_second": rates,
            "milliseconds_to_first_image": first_image,
            **speedups(milliseconds),
        }
        return result | {"seconds": {name: [round(t, 5) for t in times] for name, times in seconds.items()}}

    def record_round(seconds: Mapping[str, list[float]]) -> None:
        result = describe(seconds)
        record(result, summarize(result))

    options = {"rounds": arguments.rounds, "calls": arguments.calls, "warm_up": WARM_UP, "on_round": record_round}
    return describe(alternate(functions, device, **options))


def main() -> None:
    """Measure, and print the result as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, help="folder of the official implementation")
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--variants", nargs="+", help="precisions, each optionally with compiled or plain, in quotes")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--calls", type=int, default=1, help="number of translations timed together")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    device = select_device(arguments.device)
    variants = arguments.variants or (ON_CUDA if device.type == "cuda" else ON_CPU)
    result = measure(arguments, variants, device)
    write_result(result, arguments.out, summarize(result))


if __name__ == "__main__":
    main()

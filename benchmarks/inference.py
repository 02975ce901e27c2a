"""How long a translation takes, ours and the official generator's, in one process, alternating.

    python -m benchmarks.inference --peer DIR --rounds 7 --out benchmarks/results/inference-cpu.json

The ResNet generator of 9 blocks on random images; ours through `Translator`, as users have it. Beside the steady rate, for
each variant: milliseconds from the file to the first image.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.peer import load_peer
from benchmarks.timing import alternate, describe_machine, medians, write_result
from gantoolkit.cost.timing import synchronize
from gantoolkit.inference import Translator
from gantoolkit.recipes import cyclegan
from gantoolkit.recipes.building import build_system, initialize
from gantoolkit.runs import write_generator
from gantoolkit.runtime.device import select_device

ON_CPU = ("fp32", "bf16")
ON_CUDA = ("fp32", "tf32", "bf16", "fp16")


def write_one(path: Path) -> None:
    """The file of a generator with its first weights."""
    recipe = cyclegan().resolve()
    system = build_system(recipe)
    initialize(system, recipe)
    write_generator(path, system.directions["A2B"], direction="A2B", recipe=recipe, step=0)


def open_translator(path: Path, variant: str, device: torch.device) -> Translator:
    precision, *ways = variant.split()
    return Translator.load(path, device=str(device), precision=precision, compile="compiled" in ways)  # type: ignore[arg-type]


def main() -> None:
    """Measure, and print the result as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, help="folder of the official implementation")
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--variants", nargs="+", help="precisions; quote them together with compiled")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--calls", type=int, default=1, help="translations that are timed together")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    device = select_device(arguments.device)
    generator = torch.Generator().manual_seed(0)
    shape = (arguments.batch, 3, arguments.side, arguments.side)
    images = (torch.rand(shape, generator=generator) * 2 - 1).to(device)
    functions: dict[str, Callable[[], Tensor]] = {}
    first: dict[str, float] = {}
    if arguments.peer is not None:
        network = load_peer(arguments.peer, device, identity=False).netG_A.eval()

        def translate() -> Tensor:
            with torch.no_grad():
                return network(images)

        functions["peer"] = translate
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "A2B.safetensors"
        write_one(path)
        for variant in arguments.variants or (ON_CUDA if device.type == "cuda" else ON_CPU):
            began = time.perf_counter()
            translator = open_translator(path, variant, device)
            translator.translate_tensor(images[:1])
            synchronize(device)
            first[variant] = round(1000 * (time.perf_counter() - began), 1)
            functions[variant] = lambda translator=translator: translator.translate_tensor(images)
    seconds = alternate(functions, device, rounds=arguments.rounds, calls=arguments.calls, warm_up=2)
    found = medians(seconds)
    result: dict[str, Any] = {
        "what": "translation",
        "side": arguments.side,
        "batch": arguments.batch,
        **describe_machine(device),
        "median_milliseconds": found,
        "images_per_second": {name: round(1000 * arguments.batch / value, 2) for name, value in found.items()},
        "milliseconds_to_first_image": first,
    }
    if "peer" in found:
        result["times_as_fast_as_peer"] = {
            name: round(found["peer"] / value, 3) for name, value in found.items() if name != "peer"
        }
    write_result(
        result | {"seconds": {name: [round(t, 5) for t in times] for name, times in seconds.items()}}, arguments.out
    )


if __name__ == "__main__":
    main()

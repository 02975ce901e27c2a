"""How everything here is timed and written down: alternating, after warm-up, medians and raw times, and on what machine."""

import datetime
import gc
import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from gantoolkit.cost.timing import synchronize

__all__ = ["alternate", "describe_machine", "medians", "write_result"]


def alternate(
    functions: Mapping[str, Callable[[], Any]], device: torch.device, *, rounds: int, calls: int = 1, warm_up: int = 1
) -> dict[str, list[float]]:
    """Seconds of one call of each function, one after the other in each round.

    Args:
        calls: Calls that are timed together, where one is too short.
        warm_up: Calls of each before the first round.
    """
    for function in functions.values():
        for _ in range(warm_up):
            function()
    synchronize(device)
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    gc.collect()
    gc.disable()  # what is collected in one function's time may be another's
    try:
        for _ in range(rounds):
            for name, function in functions.items():
                began = time.perf_counter()
                for _ in range(calls):
                    function()
                synchronize(device)
                seconds[name].append((time.perf_counter() - began) / calls)
    finally:
        gc.enable()
    return seconds


def medians(seconds: Mapping[str, list[float]]) -> dict[str, float]:
    """The median time of each, in milliseconds."""
    return {name: round(1000 * statistics.median(times), 3) for name, times in seconds.items()}


def describe_machine(device: torch.device) -> dict[str, Any]:
    """What the figures were measured on."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
        models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        name = f"{models[0] if models else platform.machine()}, {torch.get_num_threads()} threads"
    return {
        "device": name,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
    }


def write_result(result: Mapping[str, Any], path: Path | None) -> None:
    """Print a result as JSON, and write it to a file if there is to be one."""
    text = json.dumps(result, indent=1)
    print(text)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")

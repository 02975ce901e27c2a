"""Time functions alternately after a warm-up, and write medians, raw times and the machine as JSON."""

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

from benchmarks.rows import record
from gantoolkit.cost.timing import synchronize

__all__ = ["alternate", "describe_machine", "medians", "speedups", "write_result"]


def alternate(
    functions: Mapping[str, Callable[[], Any]],
    device: torch.device,
    *,
    rounds: int,
    calls: int = 1,
    warm_up: int = 1,
    on_round: Callable[[Mapping[str, list[float]]], Any] = lambda seconds: None,
) -> dict[str, list[float]]:
    """Measure the seconds per call of each function; every round times all functions in turn.

    Args:
        calls: Number of calls timed together, for functions that are too short to time alone.
        warm_up: Calls of each function before the first round.
        on_round: Called after each round with the seconds so far.
    """
    for function in functions.values():
        for _ in range(warm_up):
            function()
    synchronize(device)
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    gc.collect()
    gc.disable()  # one function's garbage must not cost another's time
    try:
        for _ in range(rounds):
            for name, function in functions.items():
                start = time.perf_counter()
                for _ in range(calls):
                    function()
                synchronize(device)
                seconds[name].append((time.perf_counter() - start) / calls)
            on_round(seconds)
    finally:
        gc.enable()
    return seconds


def medians(seconds: Mapping[str, list[float]]) -> dict[str, float]:
    """The median time of each function in milliseconds."""
    return {name: round(1000 * statistics.median(times), 3) for name, times in seconds.items()}


def speedups(milliseconds: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """How many times as fast as the official code each variant is, under its key of a result; empty if it was not timed."""
    if "peer" not in milliseconds:
        return {}
    ratios = {name: round(milliseconds["peer"] / value, 3) for name, value in milliseconds.items() if name != "peer"}
    return {"times_as_fast_as_peer": ratios}


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Describe the machine, the versions and the date."""
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


def write_result(result: Mapping[str, Any], path: Path | None, summary: str = "") -> None:
    """Print a result as JSON, record it with its summary, and write it to `path` unless that is None."""
    text = json.dumps(result, indent=1)
    print(text)
    record(result, summary)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")

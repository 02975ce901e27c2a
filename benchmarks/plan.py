"""Compare `gantoolkit plan` with measured memory and time of a step, each in its own process.

    python -m benchmarks.plan --steps 3 cyclegan cyclegan:data.crop_size=128 pix2pix:training.batch_size=4

A case is a recipe, with settings after colons. Prints predictions, measurements and their ratios as JSON.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.timing import describe_machine, write_result
from gantoolkit.runtime.device import select_device

CASES = (
    "cyclegan:data.crop_size=64",
    "cyclegan:data.crop_size=128",
    "cyclegan",
    "cyclegan:data.crop_size=64:training.batch_size=4",
    "pix2pix",
    "simgan:data.crop_size=128",
    "cogan:training.batch_size=32",
)


def run(command: str, case: str, *options: str) -> dict[str, Any]:
    """Run `gantoolkit bench` or `gantoolkit plan` on a case; return its JSON."""
    recipe, *settings = case.split(":")
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        arguments = [sys.executable, "-m", "gantoolkit", command, recipe, "--json", str(result), *options]
        subprocess.run(
            [*arguments, *(f"--set={setting}" for setting in settings)], stdout=subprocess.DEVNULL, check=True
        )
        return json.loads(result.read_text())


def compare(case: str, *, steps: int, device: str) -> dict[str, Any]:
    """Predict and measure one case."""
    planned = run("plan", case, "--device", device)
    measured = run("bench", case, "--device", device, "--steps", str(steps))
    time, memory = planned["time"], measured["memory_bytes"]
    return {
        "case": case,
        "memory": {
            "predicted_bytes": planned["cost"]["peak_bytes"],
            "measured_bytes": memory,
            "kind": measured["memory_kind"],
            "measured_to_predicted": memory and round(memory / planned["cost"]["peak_bytes"], 3),
            "fits_into_needed": memory and memory <= planned["needed_bytes"],
        },
        "time": {
            "predicted_seconds": [round(time[name], 4) for name in ("low", "seconds_per_step", "high")],
            "probes": [[probe["crop_size"], probe["batch_size"], probe["seconds"]] for probe in time["probes"]],
            "measured_seconds": [round(seconds, 4) for seconds in measured["seconds"]],
            "measured_to_predicted": round(measured["seconds_per_step"] / time["seconds_per_step"], 3),
        },
        "share_of_matrix_rate": measured["share_of_matrix_rate"],
    }


def main() -> None:
    """Compare every case, and print the result as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", default=CASES)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    cases = [compare(case, steps=arguments.steps, device=arguments.device) for case in arguments.cases]
    machine = describe_machine(select_device(arguments.device))
    write_result({"what": "prediction against measurement", **machine, "cases": cases}, arguments.out)


if __name__ == "__main__":
    main()

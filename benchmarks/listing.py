"""Time `gantoolkit blocks` alone and with many entry points installed, each time in a new process.

    python -m benchmarks.listing --entry-points 200 --rounds 15

Half of the entry points belong to one distribution; the others have one distribution each.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def install(site: Path, count: int) -> None:
    """Write the installed metadata of distributions that provide `count` blocks, without code."""
    alone = count // 2
    distributions = {f"plugin-{number}": [number] for number in range(alone)} | {"many": list(range(alone, count))}
    for name, numbers in distributions.items():
        folder = site / f"{name.replace('-', '_')}-1.0.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = [f"block{number} = no_such_module_{number}:Block" for number in numbers]
        (folder / "entry_points.txt").write_text("\n".join(["[gantoolkit.v1.generators]", *lines]) + "\n")


def measure(site: Path | None) -> tuple[float, int]:
    """Time one listing; return its seconds and the number of generators listed."""
    environment = {**os.environ, "PYTHONPATH": "" if site is None else str(site)}
    environment.pop("GANTOOLKIT_PLUGINS", None)
    start = time.perf_counter()
    command = [sys.executable, "-m", "gantoolkit", "blocks"]
    completed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - start
    (line,) = [line for line in completed.stdout.splitlines() if line.startswith("generators:")]
    return seconds, line.count(",") + 1


def main() -> None:
    """Alternate both, and print medians and raw times as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entry-points", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        site = Path(folder)
        install(site, arguments.entry_points)
        times: dict[str, list[float]] = {"alone": [], "with": []}
        known = measure(None)[1]
        for _ in range(arguments.rounds):
            times["alone"].append(measure(None)[0])
            seconds, listed = measure(site)
            assert listed == known + arguments.entry_points, (
                f"{listed} generators instead of {known + arguments.entry_points}"
            )
            times["with"].append(seconds)
    result = {
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "entry_points": arguments.entry_points,
        "median_seconds": {name: round(statistics.median(values), 3) for name, values in times.items()},
        "seconds": {name: [round(value, 3) for value in values] for name, values in times.items()},
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()

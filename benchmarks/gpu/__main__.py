"""Run all GPU checks and benchmarks in one command within eight minutes.

    python -m benchmarks.gpu --peer DIR --golden DIR --out OUT

Each stage is a process with its own limit. Rows are appended to OUT/results.jsonl as soon as they are known, and the output of
all stages goes to OUT/log.txt. A stage that fails does not stop the others; the exit code is then 1. A table is printed last.
The same command again continues with the stages that were not completed; --again repeats some.
"""

import argparse
import os
import shutil
import signal
import sys
from pathlib import Path

import torch

from benchmarks.gpu.results import format_table, read_results
from benchmarks.gpu.runner import Runner
from benchmarks.gpu.stages import STAGES

SECONDS = 470
NAMES = [stage.name for stage in STAGES]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for results.jsonl and log.txt")
    parser.add_argument("--peer", type=Path, help="folder of the official implementation")
    parser.add_argument("--golden", type=Path, help="folder of records of the official implementation")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="time limit for all stages together")
    parser.add_argument("--stages", nargs="+", choices=NAMES, default=NAMES, metavar="NAME", help="run only these")
    parser.add_argument(
        "--again", nargs="+", choices=[*NAMES, "failed"], default=[], metavar="NAME", help="repeat these"
    )
    parser.add_argument("--previous", type=Path, help="a results.jsonl to continue, if OUT has none")
    parser.add_argument("--jobs", type=int, default=max(1, (os.cpu_count() or 1) // 4), help="checks side by side")
    parser.add_argument("--quick", action="store_true", help="small sizes, for a rehearsal")
    parser.add_argument(
        "--ignore-values",
        action="store_true",
        help="accept every value, for a rehearsal on a device that computes nothing",
    )
    return parser.parse_args()


def main() -> int:
    """Run the stages that are not complete, and print the table. Return 0 if all passed, 2 without a CUDA device."""
    arguments = parse_arguments()
    if not torch.cuda.is_available():
        print("benchmarks.gpu: this machine has no CUDA device", file=sys.stderr)
        return 2
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows = arguments.out / "results.jsonl"
    if arguments.previous is not None and not rows.exists():
        shutil.copyfile(arguments.previous, rows)
    previous = read_results(rows)
    failed = {name for name, result in previous.items() if "failed" in arguments.again and result.status != "passed"}
    complete = {name for name, result in previous.items() if result.is_complete} - failed - set(arguments.again)
    runner = Runner(
        arguments.out,
        {name: path for name in ("peer", "golden") if (path := getattr(arguments, name)) is not None},
        seconds=arguments.seconds,
        jobs=arguments.jobs,
        quick=arguments.quick,
        ignore_values=arguments.ignore_values,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: runner.stop())
    runner.run([stage for stage in STAGES if stage.name in arguments.stages and stage.name not in complete])
    results = {name: result for name, result in read_results(rows).items() if name in NAMES}
    print("\n" + format_table(results, runner.omitted.items()))
    if arguments.ignore_values:
        print("Values were ignored: this was a rehearsal, and nothing above says that a result is right.")
    chosen = [results[name] for name in arguments.stages if name not in runner.omitted]
    return int(any(result.status != "passed" for result in chosen) or "no time was left" in runner.omitted.values())


if __name__ == "__main__":
    sys.exit(main())

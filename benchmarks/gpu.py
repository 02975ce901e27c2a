"""Run all GPU benchmarks in one command within eight minutes, one process after the other.

    python -m benchmarks.gpu --peer DIR --out benchmarks/results

Every result is written at once, so that little is lost if time runs out. A part that fails is reported and does not stop the
others; the exit code is then 1.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

import torch

SECONDS = 460

PARTS: dict[str, tuple[list[str], bool]] = {
    # Most important first. The second value says whether the official implementation is measured too.
    "training-1": (["benchmarks.training", "--rounds", "11", "--calls", "10"], True),
    "inference-1": (["benchmarks.inference", "--rounds", "15", "--calls", "50"], True),
    "training-16": (
        [
            "benchmarks.training",
            "--batch",
            "16",
            "--rounds",
            "5",
            "--calls",
            "2",
            "--variants",
            "bf16",
            "bf16 captured",
        ],
        True,
    ),
    "inference-16": (["benchmarks.inference", "--batch", "16", "--rounds", "7", "--calls", "10"], True),
    "kernels": (["benchmarks.kernels"], False),
    "scaling": (["benchmarks.scaling", "--variant", "bf16 captured", "--rounds", "20"], False),
    "data": (["benchmarks.data", "--networks", "64", "--images", "60", "--rounds", "2"], False),
    "training-1-without-identity": (["benchmarks.training", "--no-identity", "--rounds", "5", "--calls", "10"], True),
    "inference-compiled": (
        ["benchmarks.inference", "--rounds", "7", "--calls", "50", "--variants", "bf16", "bf16 compiled"],
        False,
    ),
    "training-compiled": (
        [
            "benchmarks.training",
            "--rounds",
            "5",
            "--calls",
            "10",
            "--variants",
            "bf16 captured",
            "bf16 compiled captured",
        ],
        False,
    ),
    "plan": (["benchmarks.plan", "--steps", "5", "cyclegan", "pix2pix"], False),
}


def main() -> int:
    """Run the parts in order while time is left; return 0 if all succeeded."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, help="folder of the official implementation")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--seconds", type=int, default=SECONDS, help="time limit for all parts together")
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("benchmarks.gpu: this machine has no CUDA device", file=sys.stderr)
        return 2
    device = torch.cuda.get_device_name().lower().replace(" ", "-")
    deadline = time.monotonic() + arguments.seconds
    failures: list[str] = []
    for name in arguments.parts:
        module, has_peer = PARTS[name]
        command = [sys.executable, "-m", *module, "--out", str(arguments.out / f"{name}-{device}.json")]
        if has_peer and arguments.peer is not None:
            command += ["--peer", str(arguments.peer)]
        start, remaining = time.monotonic(), deadline - time.monotonic()
        try:
            completed = subprocess.run(command, capture_output=True, text=True, check=False, timeout=max(remaining, 1))
            problem = "" if completed.returncode == 0 else (completed.stderr.strip().splitlines() or ["no message"])[-1]
        except subprocess.TimeoutExpired:
            problem = "out of time"
        print(f"{name}: {time.monotonic() - start:.0f} s {problem or 'measured'}", flush=True)
        failures += [name] if problem else []
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())

"""Everything that is to be measured on a GPU, in one command and within eight minutes; one process after the other.

    python -m benchmarks.gpu --peer DIR --out benchmarks/results

What has been measured is written at once, so that little is lost where time runs out. One part that fails is named at the end,
and does not stop the others; the exit code says so.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

import torch

SECONDS = 460

PARTS: dict[str, tuple[list[str], bool]] = {
    # What matters most comes first. The second value: whether the official implementation is measured beside it.
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
    """Run every part that there is time for; 0 if all went well."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, help="folder of the official implementation")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--seconds", type=int, default=SECONDS, help="when to stop")
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("benchmarks.gpu: this machine has no CUDA device", file=sys.stderr)
        return 2
    device = torch.cuda.get_device_name().lower().replace(" ", "-")
    ends = time.monotonic() + arguments.seconds
    bad: list[str] = []
    for name in arguments.parts:
        module, has_peer = PARTS[name]
        command = [sys.executable, "-m", *module, "--out", str(arguments.out / f"{name}-{device}.json")]
        if has_peer and arguments.peer is not None:
            command += ["--peer", str(arguments.peer)]
        began, left = time.monotonic(), ends - time.monotonic()
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=max(left, 1))
            problem = "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["no message"])[-1]
        except subprocess.TimeoutExpired:
            problem = "no time was left"
        print(f"{name}: {time.monotonic() - began:.0f} s {problem or 'measured'}", flush=True)
        bad += [name] if problem else []
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())

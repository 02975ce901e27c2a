"""Checks that results on a CUDA device are right; each compares with float64 or with another way to compute the same.

    python -m benchmarks.gpu.checks kernels precision
    python -m benchmarks.gpu.checks golden --golden DIR

A check records its values, and fails if one exceeds its bound or is NaN. The exit code is 1 if a check fails.
"""

import argparse
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.findings import Findings, Options
from benchmarks.gpu.kernel_check import check_kernels
from benchmarks.gpu.run_checks import check_golden, check_resume, check_translation
from benchmarks.gpu.step_checks import check_capture, check_memory, check_precision, check_recipes
from benchmarks.rows import is_wrong, record

CHECKS: dict[str, Callable[[Findings, Options], None]] = {
    "kernels": check_kernels,
    "golden": check_golden,
    "precision": check_precision,
    "capture": check_capture,
    "resume": check_resume,
    "recipes": check_recipes,
    "translation": check_translation,
    "memory": check_memory,
}


def run_check(name: str, options: Options) -> bool:
    """Run a check and record its findings; return whether it passed."""
    findings = Findings()
    try:
        CHECKS[name](findings, options)
    except Exception as error:
        traceback.print_exc()
        findings.problems.append(f"{type(error).__name__}: {error}".partition("\n")[0])
    wrong, ignored = (findings.wrong_values, []) if is_wrong(True) else ([], findings.wrong_values)
    problems = findings.problems + wrong
    for problem in problems:
        print(f"{name}: {problem}", file=sys.stderr)
    parts = [f"{len(ignored)} values ignored"] if ignored else []
    parts += [*problems, *(f"{key} {_format(value)}" for key, value in findings.values.items())]
    record({"check": name, "values": findings.values, "problems": problems, "ignored": ignored}, "; ".join(parts))
    return not problems


def main() -> int:
    """Run the checks that were named. Return 1 if one fails, 2 without a CUDA device."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", choices=list(CHECKS), metavar="NAME", help=", ".join(CHECKS))
    parser.add_argument("--golden", type=Path, help="folder of records of the official implementation")
    parser.add_argument("--quick", action="store_true", help="small sizes, for a rehearsal")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("benchmarks.gpu.checks: this machine has no CUDA device", file=sys.stderr)
        return 2
    options = Options(golden=arguments.golden, quick=arguments.quick)
    passed = [run_check(name, options) for name in arguments.names]
    return int(not all(passed))


def _format(value: Any) -> str:
    return f"{value:.2g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(main())

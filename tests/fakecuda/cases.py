"""Cases that a program runs on the stand-in, one after the other, since importing PyTorch takes longer than most of them."""

import json
import os
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fakecuda.building import environment

__all__ = ["Outcomes", "print_outcomes", "run_program"]

TESTS = Path(__file__).parents[1]

Outcomes = Mapping[str, dict[str, Any]]
"""By case: `error`, a traceback or empty; `warnings`, their texts; and what the case returned."""


def print_outcomes(cases: Mapping[str, Callable[[], Mapping[str, Any]]]) -> None:
    """Run all cases, and print the outcome of each as a line of JSON. What a case raises does not end the program."""
    for name, run in cases.items():
        error, values = "", {}
        with warnings.catch_warnings(record=True) as messages:
            warnings.simplefilter("always")
            # Kernels of PyTorch 2.15 itself (bmm of outer products) do not say whether they fuse; ours do.
            warnings.filterwarnings("ignore", "TRITON_DEFAULT_FP_FUSION is unset")
            try:
                values = run()
            except Exception:
                error = traceback.format_exc()
        texts = [f"{message.category.__name__}: {message.message}" for message in messages]
        print(json.dumps({"case": name, "error": error, "warnings": texts, **values}), flush=True)


def run_program(name: str, *arguments: str, timeout: int = 1800, **options: Any) -> Outcomes:
    """Run `fakecuda.programs.NAME` on the stand-in; the outcomes that it printed.

    Args:
        arguments: The arguments of the program.
        timeout: Seconds after which it is stopped.
        options: For `environment`.

    Raises:
        MissingRequirementError: When the stand-in cannot be built here.
        RuntimeError: When the program ended with an error. Cases contain their own errors, so this one is not theirs.
    """
    paths = [str(TESTS), str(TESTS.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    variables = {**os.environ, **environment(**options), "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    variables.pop("GANTOOLKIT_PLUGINS", None)  # plugins have recipes too
    command = [sys.executable, "-m", f"fakecuda.programs.{name}", *arguments]
    process = subprocess.run(command, env=variables, capture_output=True, text=True, check=False, timeout=timeout)
    lines = [json.loads(line) for line in process.stdout.splitlines() if line.startswith('{"case"')]
    if process.returncode:
        last = lines[-1]["case"] if lines else "none"
        raise RuntimeError(f"exit code {process.returncode}, last case: {last}\n{process.stderr[-4000:]}")
    return {line.pop("case"): line for line in lines}

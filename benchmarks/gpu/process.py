"""Run a module as a stage: `python -m benchmarks.gpu.process MODULE ARGUMENTS`. An exception is recorded with its traceback.

The process ends without the interpreter's cleanup: to free a device's memory piece by piece would take seconds, and an error in
it must not count as one of the stage.
"""

import os
import runpy
import sys
import traceback

from benchmarks.rows import record


def run(module: str, arguments: list[str]) -> int:
    """Run a module with these arguments; return its exit code."""
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
            record({"error": end.code}, end.code.partition("\n")[0])
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException as error:
        traceback.print_exc()
        record({"error": traceback.format_exc()[-8000:]}, f"{type(error).__name__}: {error}".partition("\n")[0])
        return 1
    return 0


if __name__ == "__main__":
    code = run(sys.argv[1], sys.argv[2:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)

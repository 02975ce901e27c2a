"""Run stages as processes, each with a limit, until the time for all of them is over."""

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.gpu.results import read_results
from benchmarks.gpu.stages import Stage
from benchmarks.rows import append_row, stage_environment

__all__ = ["Runner"]

ROOT = Path(__file__).parents[2]
LEAST_SECONDS = 5
"""A stage is not started with less time left."""
QUICK_LIMIT_FACTOR = 5
"""A rehearsal may run on a slow machine, and has to compile as much."""


class Runner:
    """Runs stages, writes `results.jsonl` and `log.txt`, and can be stopped at any time.

    Args:
        out: Folder of the two files.
        options: Values of the options that stages take, such as the folder of the golden records.
        seconds: Time for all stages together.
        jobs: Number of processes that run side by side where stages allow it.
        quick: Run the small version of every stage.
        ignore_values: See `benchmarks.rows.stage_environment`.
    """

    def __init__(
        self,
        out: Path,
        options: Mapping[str, Path],
        *,
        seconds: float,
        jobs: int,
        quick: bool = False,
        ignore_values: bool = False,
    ) -> None:
        self.rows, self.log = out / "results.jsonl", out / "log.txt"
        self.omitted: dict[str, str] = {}
        self._options, self._jobs = options, jobs
        self._quick, self._ignore_values = quick, ignore_values
        self._deadline = time.monotonic() + seconds
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._stopped = False

    def run(self, stages: Sequence[Stage]) -> None:
        """Run the stages in order; neighbors that may run side by side do."""
        runnable = [stage for stage in stages if self._has_needs(stage)]
        for side_by_side, group in itertools.groupby(runnable, key=lambda stage: stage.side_by_side):
            with ThreadPoolExecutor(self._jobs if side_by_side else 1) as pool:
                list(pool.map(self._run_stage, group))

    def stop(self) -> None:
        """Kill the processes that are running, and start no more."""
        self._stopped = True
        for process in list(self._processes):
            _kill_group(process)

    def _has_needs(self, stage: Stage) -> bool:
        absent = [f"--{option} was not given" for option in stage.needs if option not in self._options]
        if absent:
            self.omitted[stage.name] = ", ".join(absent)
        return not absent

    def _run_stage(self, stage: Stage) -> None:
        stage_limit = stage.limit * (QUICK_LIMIT_FACTOR if self._quick else 1)
        limit = min(stage_limit, self._deadline - time.monotonic())
        if self._stopped or limit < LEAST_SECONDS:
            self.omitted[stage.name] = "no time was left"
            return
        append_row(self.rows, {"stage": stage.name, "status": "started"})
        self._write_log(stage.name, f"--- {' '.join(self._command(stage)[3:])}")
        start = time.monotonic()
        code, in_time = self._run_process(stage, limit)
        if code == 0:
            status = "passed"
        elif in_time and not self._stopped:
            status = "failed"
        else:
            status = "over its limit" if limit == stage_limit and not self._stopped else "interrupted"
        seconds = round(time.monotonic() - start, 1)
        append_row(self.rows, {"stage": stage.name, "status": status, "exit_code": code, "seconds": seconds})
        print(
            f"{stage.name}: {status} after {seconds:.0f} s; {read_results(self.rows)[stage.name].summary}", flush=True
        )

    def _run_process(self, stage: Stage, limit: float) -> tuple[int, bool]:
        """Run a stage; return its exit code, and whether it ended within the limit."""
        environment = stage_environment(self.rows, stage.name, ignore_values=self._ignore_values)
        process = subprocess.Popen(
            self._command(stage),
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that its own processes are killed with it
        )
        timer = threading.Timer(limit, _kill_group, [process])
        with process:
            self._processes.add(process)
            if self._stopped:
                _kill_group(process)
            timer.start()
            assert process.stdout is not None
            for line in process.stdout:
                self._write_log(stage.name, line.decode(errors="replace").rstrip())
        in_time = timer.is_alive()
        timer.cancel()
        self._processes.discard(process)
        return process.returncode, in_time

    def _command(self, stage: Stage) -> list[str]:
        command = [
            sys.executable,
            "-m",
            "benchmarks.gpu.process",
            *stage.command,
            *(stage.quick if self._quick else stage.full),
        ]
        for option in stage.takes:
            if option in self._options:
                command += [f"--{option}", str(self._options[option].resolve())]
        return command

    def _write_log(self, name: str, text: str) -> None:
        with self.log.open("ab", buffering=0) as file:  # one write a line: stages run side by side
            file.write(f"{name}: {text}\n".encode())


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    # Also if the stage itself has ended: a process that it started may still hold its output open.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)

"""Run the tests that need a CUDA device, and record each failure as it happens."""

import argparse
import importlib.util
import sys
from pathlib import Path

import pytest

from benchmarks.rows import is_wrong, record

ROOT = Path(__file__).parents[2]
MARKER = "pytest.mark.cuda"


def list_test_files() -> list[str]:
    """The test files that contain a test marked `cuda`; others would take time to be collected."""
    return [str(path) for path in sorted((ROOT / "tests").rglob("test_*.py")) if MARKER in path.read_text("utf-8")]


class Recorder:
    """A pytest plugin that counts outcomes and records failures."""

    def __init__(self) -> None:
        self.counts = {"passed": 0, "failed": 0, "skipped": 0, "ignored": 0}
        self.failures: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.passed and report.when != "call":
            return
        outcome = report.outcome
        if report.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            message = getattr(crash, "message", str(report.longrepr)).partition("\n")[0]
            if message.startswith(("AssertionError", "assert ")) and not is_wrong(True):
                outcome = "ignored"
            else:
                self.failures.append(report.nodeid)
            record({"test": report.nodeid, "outcome": outcome, "message": message})
        self.counts[outcome] += 1

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.failures.append(report.nodeid)
            record({"test": report.nodeid, "outcome": "failed", "message": str(report.longrepr)[-2000:]})

    def summarize(self) -> str:
        counts = ", ".join(f"{count} {outcome}" for outcome, count in self.counts.items() if count)
        names = "; ".join(name.rpartition("/")[2] for name in self.failures[:4])
        return f"{counts or 'nothing ran'}{': ' if names else ''}{names}"


def main() -> int:
    """Return 0 if tests ran and none failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=6, help="processes, if pytest-xdist is installed")
    arguments = parser.parse_args()
    recorder = Recorder()
    options = ["-m", "cuda", "-q", "--tb=short", "-p", "no:cacheprovider", f"--rootdir={ROOT}"]
    if arguments.workers and importlib.util.find_spec("xdist"):
        options += ["-n", str(arguments.workers), "--dist", "load"]
    code = pytest.main([*options, *list_test_files()], plugins=[recorder])
    record({"tests": recorder.counts, "exit_code": int(code)}, recorder.summarize())
    completed = code in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
    return int(not completed or bool(recorder.failures) or not sum(recorder.counts.values()))


if __name__ == "__main__":
    sys.exit(main())

"""Read `results.jsonl`: the rows of each stage since it was last started, and how it ended."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["StageResult", "format_table", "read_results"]


@dataclass
class StageResult:
    """What is known of a stage.

    Args:
        status: `passed`, `failed`, `over its limit`, `interrupted`, or `started` if its process was killed with its parent.
        exit_code: Of its process; negative for the signal that killed it. None while it is unknown.
        seconds: Duration; None while it is unknown.
        rows: What it recorded, in order.
    """

    status: str = "started"
    exit_code: int | None = None
    seconds: float | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)

    @property
    def is_complete(self) -> bool:
        """Whether a second call leaves it out."""
        return self.status in ("passed", "failed", "over its limit")

    @property
    def summary(self) -> str:
        """The last summary that it recorded, or its exit code if there is none."""
        code = f"exit code {self.exit_code}" if self.status == "failed" else ""
        return next((row["summary"] for row in reversed(self.rows) if "summary" in row), code)


def read_results(path: Path) -> dict[str, StageResult]:
    """Read the results of every stage that was started; a last line that was cut off is ignored."""
    results: dict[str, StageResult] = {}
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    for line in lines:
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if row.get("status") == "started":
            results[row["stage"]] = StageResult()
        elif "status" in row:
            result = results[row["stage"]]
            result.status, result.exit_code, result.seconds = row["status"], row["exit_code"], row["seconds"]
        else:
            results[row["stage"]].rows.append(row)
    return results


def format_table(results: dict[str, StageResult], omitted: Iterable[tuple[str, str]] = (), *, width: int = 200) -> str:
    """One line per stage: name, status, seconds and summary.

    Args:
        omitted: Stages without a result, with the reason.
        width: Characters of a line.
    """
    rows = [
        (name, result.status, "" if result.seconds is None else f"{result.seconds:.0f} s", result.summary)
        for name, result in results.items()
    ]
    rows += [(name, "not run", "", reason) for name, reason in omitted if name not in results]
    sizes = [max((len(row[column]) for row in rows), default=0) for column in range(3)]
    return "\n".join(
        f"{name:<{sizes[0]}}  {status:<{sizes[1]}}  {seconds:>{sizes[2]}}  {summary}"[:width].rstrip()
        for name, status, seconds, summary in rows
    )

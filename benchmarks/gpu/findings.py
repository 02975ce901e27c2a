"""What a check finds: values, and those that are wrong."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

__all__ = ["Findings", "Options", "largest"]


@dataclass(frozen=True)
class Options:
    """Options of the command.

    Args:
        golden: Folder of the records of the official implementation.
        quick: Use small sizes.
    """

    golden: Path | None = None
    quick: bool = False


class Findings:
    """The values of a check, and what is wrong.

    Values may be ignored in a rehearsal (`benchmarks.rows.is_wrong`). What the host does is never ignored.
    """

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.wrong_values: list[str] = []
        self.problems: list[str] = []

    def note(self, name: str, value: Any) -> None:
        """Keep a value that is not judged."""
        self.values[name] = value

    def compare(self, name: str, value: float, bound: float) -> None:
        """Keep a value that must not exceed its bound; NaN does."""
        self.values[name] = value
        self.judge(value <= bound, f"{name}: {value:.3g} exceeds {bound:.3g}")

    def judge(self, condition: bool, problem: str) -> None:
        """Note a wrong value unless `condition` holds."""
        if not condition:
            self.wrong_values.append(problem)

    def require(self, condition: bool, problem: str) -> None:
        """Note a problem of the host unless `condition` holds."""
        if not condition:
            self.problems.append(problem)


def largest(*values: float) -> float:
    """The largest value, or NaN if one is NaN, which `max` may leave out."""
    return float(torch.tensor(values, dtype=torch.float64).max())

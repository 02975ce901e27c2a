"""One line in a plugin's tests becomes one named pytest item a rule."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest
import torch

from gantoolkit.recipes import BlockSpec
from gantoolkit.runtime.device import available_devices
from gantoolkit.testing.kit import BrokenRuleError, Rule, Subject
from gantoolkit.testing.rules import RULEBOOKS

__all__ = ["Check", "Checks"]

Test = TypeVar("Test", bound=Callable[..., None])


@dataclass(frozen=True)
class Check:
    """One rule and one block; calling it tries the rule.

    Raises:
        BrokenRuleError: When the block breaks the rule, with the smallest example.
    """

    rule: Rule
    subject: Subject
    expected_failures: Mapping[str, str]

    def __call__(self) -> None:
        outcome = self.rule.run(self.subject, self.expected_failures)
        if outcome.state == "departs":
            pytest.xfail(outcome.message)
        if outcome.state == "not applicable":
            pytest.skip(outcome.message)
        if outcome.state == "broken":
            raise BrokenRuleError(outcome.message) from outcome.error


class Checks:
    """Makes a test of a block into one test for each rule of its kind; the test gets a `check` and calls it.

    Args:
        kind: The kind of block, such as `"generators"`.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.__doc__ = f"The checks of {kind}: a decorator for a test with the argument `check`."

    @property
    def rules(self) -> Sequence[Rule]:
        """The rules, in the order in which they are tried."""
        return tuple(RULEBOOKS[self.kind].rules)

    def __call__(
        self,
        block: Any,
        *,
        sizes: Sequence[int] | None = None,
        layers: Sequence[str] = (),
        expected_failures: Mapping[str, str] | None = None,
    ) -> Callable[[Test], Test]:
        """Decorate a test.

        Args:
            block: The block's name, a table with its `name` and parameters, or the class or function itself.
            sizes: Heights and widths to try, in pixels; by default some that suit the block.
            layers: For feature extractors, the layers to ask for.
            expected_failures: Names of rules that the block breaks on purpose, each with the reason; such a test is an
                expected failure, and fails if the rule is kept.

        Raises:
            ValueError: When an expected failure names no rule.
        """
        expected = dict(expected_failures or {})
        if unknown := expected.keys() - {rule.name for rule in self.rules}:
            raise ValueError(
                f"{self.kind} have no rule {', '.join(sorted(unknown))}; known: {', '.join(r.name for r in self.rules)}"
            )
        items = [
            pytest.param(
                Check(rule, Subject(self.kind, BlockSpec.of(block), torch.device(device), sizes, layers), expected),
                id=rule.name if device == "cpu" else f"{rule.name}-{device}",
            )
            for device in available_devices()
            for rule in self.rules
        ]
        return pytest.mark.parametrize("check", items)

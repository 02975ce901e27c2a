"""Decorators that turn one test of a block into one named pytest item per rule."""

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
    """One rule and one block; calling it tests the rule.

    Raises:
        BrokenRuleError: When the block breaks the rule, with the smallest example that was found.
    """

    rule: Rule
    subject: Subject
    expected_failures: Mapping[str, str]

    def __call__(self) -> None:
        outcome = self.rule.run(self.subject, self.expected_failures)
        if outcome.state == "expected failure":
            pytest.xfail(outcome.message)
        if outcome.state == "not applicable":
            pytest.skip(outcome.message)
        if outcome.state == "failed":
            raise BrokenRuleError(outcome.message) from outcome.error


class Checks:
    """Turns a test of a block into one test per rule of its kind; the test takes an argument `check` and calls it.

    Args:
        kind: The kind of block, such as `"generators"`.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.__doc__ = f"The checks of {kind}: a decorator for a test with an argument `check`."

    @property
    def rules(self) -> Sequence[Rule]:
        """The rules, in the order in which they are tested."""
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
            sizes: Heights and widths to test, in pixels; by default some that suit the block.
            layers: For feature extractors, the layers to request.
            expected_failures: Reasons by the names of rules that the block breaks on purpose. Such a test is an expected
                failure; it fails if the block follows the rule.

        Raises:
            ValueError: When `expected_failures` names an unknown rule.
        """
        expected = dict(expected_failures or {})
        if unknown := expected.keys() - {rule.name for rule in self.rules}:
            raise ValueError(
                f"{self.kind}: unknown rule {', '.join(sorted(unknown))}; known: {', '.join(r.name for r in self.rules)}"
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

"""The engine of the conformance checks: a rule, the block under test, and the outcome.

A rule is a function of a block and of random draws; its docstring states what the protocol requires. hypothesis draws the
examples and, when one breaks the rule, searches for a smaller one.
"""

import unittest
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor

from gantoolkit.errors import GantoolkitError, first_line
from gantoolkit.plugins import REGISTRIES
from gantoolkit.recipes.block_spec import BlockSpec, bind, resolve
from gantoolkit.registry.signature import read_parameters
from gantoolkit.runtime.randomness import isolated_random_state, seed_everything
from gantoolkit.testing.stand_ins import STAND_INS

__all__ = ["BrokenRuleError", "Draw", "NotApplicable", "Outcome", "Rule", "Rulebook", "Subject", "expect"]

T = TypeVar("T")


class BrokenRuleError(AssertionError):
    """A block does not do what its protocol requires; the message names the rule and an example."""


class NotApplicable(unittest.SkipTest):
    """The rule concerns an optional feature that this block does not have."""


def expect(condition: bool, problem: str) -> None:
    """Break the rule unless the condition holds.

    Args:
        problem: What was observed instead of what the protocol requires.
    """
    if not condition:
        raise BrokenRuleError(problem)


class Draw:
    """Draws random values and records them for the message."""

    def __init__(self, data: st.DataObject) -> None:
        self._data = data
        self.example: dict[str, str] = {}

    def __call__(self, strategy: st.SearchStrategy[T], name: str) -> T:
        """Draw a value from `strategy`; messages call it `name`."""
        value = self._data.draw(strategy)
        self.example[name] = describe(value)
        return value


@dataclass(frozen=True)
class Subject:
    """The block under test, with the device and the inputs to test it on.

    Args:
        kind: Its kind, such as `"generators"`.
        block: Its name or class, with parameters. Slots that it does not fill get small built-in blocks.
        device: The device to test it on.
        sizes: Heights and widths to test, in pixels; None chooses some that suit the block.
        layers: For feature extractors, the layers to request.
    """

    kind: str
    block: BlockSpec
    device: torch.device = torch.device("cpu")
    sizes: Sequence[int] | None = None
    layers: Sequence[str] = ()

    def load(self) -> Callable[..., Any]:
        """Load the class or function itself."""
        return self.block.load(self.kind)

    def factory(self) -> Callable[..., Any]:
        """Bind the block's parameters and slots; the result takes the positional arguments that a system passes."""
        block = BlockSpec.of(self.block)
        empty = {
            name: STAND_INS[parameter.slot]
            for name, parameter in read_parameters(block.load(self.kind)).items()
            if parameter.slot and parameter.required and name not in block.parameters
        }
        full = block.model_copy(update={"parameters": {**empty, **block.parameters}})
        return bind(self.kind, resolve(self.kind, full, f"{self.kind}.{block.name}"))

    def make(self, *arguments: Any, seed: int = 0) -> Any:
        """Build the block from the positional arguments that a system passes; `seed` determines its random weights."""
        with same_randomness(seed):
            block = self.factory()(*arguments)
        return block.to(self.device) if isinstance(block, torch.nn.Module) else block

    def __str__(self) -> str:
        registry = REGISTRIES[self.kind]
        entry = registry.find(self.block.name) if self.block.target is None else None
        origin = f" from {entry.distribution} {entry.version}".rstrip() if entry else ""
        return f"{self.kind}: '{self.block.name}'{origin}"


@dataclass(frozen=True)
class Rule:
    """A requirement on every block of a kind.

    Args:
        kind: The kind of block.
        name: The invariant, such as `preserves_size`.
        requirement: What the protocol requires, in words.
        check: Tests one example; raises `BrokenRuleError`.
        examples: The number of examples to test.
    """

    kind: str
    name: str
    requirement: str
    check: Callable[[Subject, Draw], None] = field(repr=False)
    examples: int = 10

    def run(self, subject: Subject, expected_failures: Mapping[str, str] | None = None) -> "Outcome":
        """Test the rule on examples until one breaks it.

        Args:
            expected_failures: Reasons by the names of rules that the block is known to break, in addition to those in the
                block's own attribute `expected_failures`.
        """
        try:
            own = getattr(subject.load(), "expected_failures", {})
        except GantoolkitError as error:
            return Outcome(self, "failed", str(error))
        reason = {**own, **(expected_failures or {})}.get(self.name)
        outcome = self._test(subject)
        if reason is None or outcome.state == "not applicable":
            return outcome
        if outcome.state == "failed":
            return Outcome(self, "expected failure", reason)
        return Outcome(
            self, "failed", f"{subject} follows the rule {self.name}, but was expected to break it: {reason}"
        )

    def _test(self, subject: Subject) -> "Outcome":
        failure: Outcome | None = None
        attempts = 0

        @settings(
            derandomize=True,
            database=None,
            deadline=None,
            max_examples=self.examples,
            phases=[Phase.generate, Phase.shrink],  # Phase.explain would try larger examples after the smallest one
            report_multiple_bugs=False,
            print_blob=False,
            suppress_health_check=list(HealthCheck),  # type: ignore[arg-type] (an enumeration with a custom metaclass)
        )
        @given(st.data())
        def test_examples(data: st.DataObject) -> None:
            nonlocal failure, attempts
            attempts += failure is not None
            if attempts > 2 * self.examples:  # bounds the search for a smaller example
                return
            draw = Draw(data)
            try:
                with same_randomness(0):
                    self.check(subject, draw)
            except NotApplicable:
                raise
            except BrokenRuleError as error:
                failure = Outcome(self, "failed", self._explain(subject, str(error), draw.example))
                raise
            except Exception as error:  # any error of the block
                problem = f"it raised {type(error).__name__}: {first_line(error)} {locate(error)}".rstrip()
                failure = Outcome(self, "failed", self._explain(subject, problem, draw.example), error)
                raise

        try:
            test_examples()
        except NotApplicable as reason:
            return Outcome(self, "not applicable", str(reason))
        except Exception as error:
            if failure is None:
                raise AssertionError(f"the rule {self.name} could not be tested: {error}") from error
        return failure or Outcome(self, "passed")

    def _explain(self, subject: Subject, problem: str, example: Mapping[str, str]) -> str:
        values = "; ".join(f"{name} = {value}" for name, value in example.items()) or "none is needed"
        device = "" if subject.device.type == "cpu" else f" on {subject.device}"
        return (
            f"{subject} breaks the rule {self.name}{device}\n"
            f"  The protocol requires: {self.requirement}\n"
            f"  Found: {problem}\n"
            f"  Smallest example: {values}"
        )


@dataclass(frozen=True)
class Outcome:
    """The result of a rule, with the problem, or the reason why the failure is expected or the rule does not apply."""

    rule: Rule
    state: Literal["passed", "failed", "expected failure", "not applicable"]
    message: str = ""
    error: BaseException | None = None


class Rulebook:
    """The rules of one kind, in the order in which they were added.

    Args:
        kind: The kind of block.
        examples: The number of examples that each rule is tested on.
    """

    def __init__(self, kind: str, *, examples: int) -> None:
        self.kind = kind
        self.examples = examples
        self.rules: list[Rule] = []

    def rule(self, check: Callable[[Subject, Draw], None]) -> Callable[[Subject, Draw], None]:
        """Add a rule: the function's name is the rule's name, its docstring states what the protocol requires."""
        requirement = " ".join((check.__doc__ or "").split())
        self.rules.append(Rule(self.kind, check.__name__, requirement, check, self.examples))
        return check


@contextmanager
def same_randomness(seed: int) -> Iterator[None]:
    """Seed all global random generators with `seed`, and restore their states afterwards."""
    with isolated_random_state(torch.device("cuda" if torch.cuda.is_available() else "cpu")):
        seed_everything(seed)
        yield


def describe(value: object) -> str:
    """Format a value for a message: small tensors in full, larger ones by shape and range."""
    if isinstance(value, tuple | list) and any(isinstance(part, Tensor) for part in value):
        return f"({', '.join(describe(part) for part in value)})"
    if not isinstance(value, Tensor):
        return repr(value)
    if value.numel() <= 6:
        return f"tensor {tuple(value.shape)} of {[round(number, 4) for number in value.flatten().tolist()]}"
    low, high = value.min().item(), value.max().item()
    return f"tensor {tuple(value.shape)} with values from {low:.3g} to {high:.3g}"


def locate(error: BaseException) -> str:
    """File and line of an error's innermost frame outside of torch, gantoolkit and the test machinery."""
    location = ""
    trace = error.__traceback__
    while trace is not None:
        module = trace.tb_frame.f_globals.get("__name__", "").partition(".")[0]
        if module not in ("torch", "gantoolkit", "hypothesis", "functools", "contextlib"):
            location = f"({trace.tb_frame.f_code.co_filename}, line {trace.tb_lineno})"
        trace = trace.tb_next
    return location

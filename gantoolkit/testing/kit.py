"""The engine of the conformance checks: rules, the block that they are tried on, and what came of it.

A rule is a function of a block and of random draws whose docstring says what the protocol wants. hypothesis makes the draws
and, when a rule is broken, looks for the smallest one that breaks it.
"""

import unittest
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import torch
from hypothesis import HealthCheck, given, settings
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
    """A block does not do what its protocol wants; the message says which rule, on which example."""


class NotApplicable(unittest.SkipTest):
    """The rule speaks of something that this block does not offer, and need not."""


def expect(condition: bool, found: str) -> None:
    """Break the rule unless the condition holds.

    Args:
        found: What was found instead of what the protocol wants.
    """
    if not condition:
        raise BrokenRuleError(found)


class Draw:
    """Draws random values, and remembers what they were for the message."""

    def __init__(self, data: st.DataObject) -> None:
        self._data = data
        self.example: dict[str, str] = {}

    def __call__(self, strategy: st.SearchStrategy[T], name: str) -> T:
        """A value from `strategy`, called `name` in messages."""
        value = self._data.draw(strategy)
        self.example[name] = describe(value)
        return value


@dataclass(frozen=True)
class Subject:
    """The block under test, and on what it is tried.

    Args:
        kind: Its kind, such as `"generators"`.
        block: Its name or class, with parameters; slots that it does not fill get small blocks of ours.
        device: Where it is tried.
        sizes: Heights and widths to try, in pixels; None takes some that suit the block.
        layers: For feature extractors, layers to ask for.
    """

    kind: str
    block: BlockSpec
    device: torch.device = torch.device("cpu")
    sizes: Sequence[int] | None = None
    layers: Sequence[str] = ()

    def load(self) -> Callable[..., Any]:
        """The class or function itself."""
        return self.block.load(self.kind)

    def factory(self) -> Callable[..., Any]:
        """What makes it: called with what a system would give."""
        block = BlockSpec.of(self.block)
        empty = {
            name: STAND_INS[parameter.slot]
            for name, parameter in read_parameters(block.load(self.kind)).items()
            if parameter.slot and parameter.required and name not in block.parameters
        }
        full = block.model_copy(update={"parameters": {**empty, **block.parameters}})
        return bind(self.kind, resolve(self.kind, full, f"{self.kind}.{block.name}"))

    def make(self, *arguments: Any, seed: int = 0) -> Any:
        """The block, made from what a system would give, with what its layers draw following from `seed`."""
        with same_randomness(seed):
            made = self.factory()(*arguments)
        return made.to(self.device) if isinstance(made, torch.nn.Module) else made

    def __str__(self) -> str:
        registry = REGISTRIES[self.kind]
        entry = registry.find(self.block.name) if self.block.target is None else None
        origin = f" from {entry.distribution} {entry.version}".rstrip() if entry else ""
        return f"{self.kind}: '{self.block.name}'{origin}"


@dataclass(frozen=True)
class Rule:
    """Something that every block of a kind does.

    Args:
        kind: The kind of block.
        name: The invariant, such as `preserves_size`.
        wants: What the protocol wants.
        check: Tries it on one example; raises `BrokenRuleError`.
        examples: How many examples are tried.
    """

    kind: str
    name: str
    wants: str
    check: Callable[[Subject, Draw], None] = field(repr=False)
    examples: int = 10

    def run(self, subject: Subject, expected_failures: Mapping[str, str] | None = None) -> "Outcome":
        """Try the rule on examples until one breaks it.

        Args:
            expected_failures: Reasons by the names of rules that the block is known to break; those that the block itself
                states in its attribute `expected_failures` are added.
        """
        try:
            own = getattr(subject.load(), "expected_failures", {})
        except GantoolkitError as error:
            return Outcome(self, "broken", str(error))
        reason = {**own, **(expected_failures or {})}.get(self.name)
        outcome = self._try(subject)
        if reason is None or outcome.state == "not applicable":
            return outcome
        if outcome.state == "broken":
            return Outcome(self, "departs", reason)
        return Outcome(self, "broken", f"{subject} keeps the rule {self.name}, which was expected to fail: {reason}")

    def _try(self, subject: Subject) -> "Outcome":
        broken: Outcome | None = None
        tries = 0

        @settings(
            derandomize=True,
            database=None,
            deadline=None,
            max_examples=self.examples,
            report_multiple_bugs=False,
            print_blob=False,
            suppress_health_check=list(HealthCheck),  # type: ignore[arg-type] (an enumeration by a metaclass of its own)
        )
        @given(st.data())
        def try_examples(data: st.DataObject) -> None:
            nonlocal broken, tries
            tries += broken is not None
            if tries > 2 * self.examples:  # enough of looking for a smaller example
                return
            draw = Draw(data)
            try:
                with same_randomness(0):
                    self.check(subject, draw)
            except NotApplicable:
                raise
            except BrokenRuleError as error:
                broken = Outcome(self, "broken", self._explain(subject, str(error), draw.example))
                raise
            except Exception as error:  # the block's own, whatever it is
                found = f"it raised {type(error).__name__}: {first_line(error)} {locate(error)}".rstrip()
                broken = Outcome(self, "broken", self._explain(subject, found, draw.example), error)
                raise

        try:
            try_examples()
        except NotApplicable as reason:
            return Outcome(self, "not applicable", str(reason))
        except Exception as error:
            if broken is None:
                raise AssertionError(f"the rule {self.name} could not be tried: {error}") from error
        return broken or Outcome(self, "kept")

    def _explain(self, subject: Subject, found: str, example: Mapping[str, str]) -> str:
        drawn = "; ".join(f"{name} = {value}" for name, value in example.items()) or "none is needed"
        device = "" if subject.device.type == "cpu" else f" on {subject.device}"
        return (
            f"{subject} breaks the rule {self.name}{device}\n"
            f"  The protocol wants: {self.wants}\n"
            f"  Found: {found}\n"
            f"  Smallest example: {drawn}"
        )


@dataclass(frozen=True)
class Outcome:
    """What came of a rule: kept, broken (why), departed from as expected (why), or not applicable (why)."""

    rule: Rule
    state: Literal["kept", "broken", "departs", "not applicable"]
    message: str = ""
    error: BaseException | None = None


class Rulebook:
    """The rules of one kind, in the order in which they were added.

    Args:
        kind: The kind of block.
        examples: How many examples each rule is tried on, unless it says otherwise.
    """

    def __init__(self, kind: str, *, examples: int) -> None:
        self.kind = kind
        self.examples = examples
        self.rules: list[Rule] = []

    def rule(self, check: Callable[[Subject, Draw], None]) -> Callable[[Subject, Draw], None]:
        """Add a rule: the function's name is the rule's, its docstring says what the protocol wants."""
        wants = " ".join((check.__doc__ or "").split())
        self.rules.append(Rule(self.kind, check.__name__, wants, check, self.examples))
        return check


@contextmanager
def same_randomness(seed: int) -> Iterator[None]:
    """All global random generators start from `seed`; afterwards they are as they were."""
    with isolated_random_state(torch.device("cuda" if torch.cuda.is_available() else "cpu")):
        seed_everything(seed)
        yield


def describe(value: object) -> str:
    """A value in a message: small tensors whole, larger ones by shape and range."""
    if isinstance(value, tuple | list) and any(isinstance(part, Tensor) for part in value):
        return f"({', '.join(describe(part) for part in value)})"
    if not isinstance(value, Tensor):
        return repr(value)
    if value.numel() <= 6:
        return f"tensor {tuple(value.shape)} of {[round(number, 4) for number in value.flatten().tolist()]}"
    low, high = value.min().item(), value.max().item()
    return f"tensor {tuple(value.shape)} with values from {low:.3g} to {high:.3g}"


def locate(error: BaseException) -> str:
    """File and line of the innermost frame of an error that is neither torch's nor ours."""
    place = ""
    trace = error.__traceback__
    while trace is not None:
        module = trace.tb_frame.f_globals.get("__name__", "").partition(".")[0]
        if module not in ("torch", "gantoolkit", "hypothesis", "functools", "contextlib"):
            place = f"({trace.tb_frame.f_code.co_filename}, line {trace.tb_lineno})"
        trace = trace.tb_next
    return place

"""Every deliberately wrong block breaks the rule that covers its mistake, and every rule has such a block."""

from collections.abc import Callable
from typing import Any

import pytest
from _helpers.mutants import MUTANTS, broken_rules
from _helpers.rare_mutants import RARE_MUTANTS

from gantoolkit.testing import RULEBOOKS

pytestmark = pytest.mark.slow(reason="tries every rule on every wrong block")

CASES = [
    pytest.param(kind, mutant, rules, id=f"{kind}-{mutant.__name__}")
    for table in (MUTANTS, RARE_MUTANTS)
    for kind, mutants in table.items()
    for mutant, rules in mutants.items()
]


@pytest.mark.parametrize(("kind", "mutant", "rules"), CASES)
def test_mutant_breaks_the_rule_for_its_mistake_and_no_unrelated_rule(
    kind: str, mutant: Callable[..., Any], rules: list[str]
) -> None:
    broken = broken_rules(kind, mutant, layers=["1", "4"] if kind == "feature_extractors" else [])
    assert set(rules[:1]) <= set(broken), broken
    assert set(broken) <= set(rules), {name: broken[name] for name in broken if name not in rules}


def test_every_rule_has_a_mutant() -> None:
    """Kinds that share a rule share its code."""
    codes = {(kind, rule.name): rule.check.__code__ for kind, book in RULEBOOKS.items() for rule in book.rules}
    tested = {codes[kind, rules[0]] for kind, _, rules in (case.values for case in CASES) if rules}
    assert [name for name, code in codes.items() if code not in tested] == []

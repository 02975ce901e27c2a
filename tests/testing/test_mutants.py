"""Each deliberately wrong block breaks the rule that is meant for its mistake, and no other rule."""

from collections.abc import Callable
from typing import Any

import pytest
from _helpers.mutants import MUTANTS, broken_rules


@pytest.mark.parametrize(
    ("kind", "mutant"), [pytest.param(kind, mutant, id=mutant.__name__) for kind in MUTANTS for mutant in MUTANTS[kind]]
)
def test_each_mutant_breaks_the_rule_meant_for_it(kind: str, mutant: Callable[..., Any]) -> None:
    meant = MUTANTS[kind][mutant]
    found = broken_rules(kind, mutant)
    assert set(meant[:1]) <= set(found), found
    assert set(found) <= set(meant), {name: found[name] for name in found if name not in meant}

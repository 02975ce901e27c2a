"""A run on `cuda:1` uses that device alone."""

from collections.abc import Callable

import pytest

from fakecuda.cases import Outcomes

pytestmark = pytest.mark.slow(reason="trains runs on the stand-in for CUDA")

CASES = [
    "steps fp32",
    "steps fp32 capture",
    "steps bf16",
    "steps bf16 capture",
    "run",
    "run capture",
    "translation",
]


@pytest.fixture(scope="module")
def outcomes(program: Callable[..., Outcomes]) -> Outcomes:
    return program("second_device", devices=2)


@pytest.mark.parametrize("name", CASES)
def test_all_work_is_on_the_second_device(name: str, outcomes: Outcomes) -> None:
    outcome = outcomes[name]
    assert (outcome["error"], outcome["warnings"]) == ("", [])
    assert outcome["launches"] > 0
    assert outcome["elsewhere"] == []


@pytest.mark.parametrize("name", [name for name in CASES if name.endswith("capture")])
def test_the_captured_step_is_not_empty(name: str, outcomes: Outcomes) -> None:
    outcome = outcomes[name]
    assert not outcome["error"]
    assert outcome["nodes"]
    assert min(outcome["nodes"]) > 100
    assert set(outcome["replayed"]) <= set(outcome["nodes"])
    assert outcome["replayed"]

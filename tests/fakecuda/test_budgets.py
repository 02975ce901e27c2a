"""What a step of the paper's CycleGAN may cost: 256×256, bf16, with the identity terms."""

from collections.abc import Callable

import pytest

from fakecuda.cases import Outcomes

pytestmark = pytest.mark.slow(reason="takes steps of the paper's networks on the stand-in for CUDA")

MOST_LAUNCHES = 900
"""Kernels, copies and memsets of a captured step with one pair of images."""

MOST_CALLS_PER_REPLAY = 16
"""Copies of images and decisions, and the graph itself."""

MOST_DETERMINISTIC_LAUNCHES = 1.1
"""Of a step with deterministic algorithms, as a multiple of those of a step without."""

MOST_RESERVED = 16_000_000_000
"""Bytes that the allocator holds at any time, from the first step to a replay, with 16 pairs of images."""


@pytest.fixture(scope="module")
def outcomes(program: Callable[..., Outcomes]) -> Outcomes:
    outcomes = program("budgets")
    errors = [outcome["error"] for outcome in outcomes.values() if outcome["error"]]
    assert not errors, errors[0]
    return outcomes


def test_launches_of_a_captured_step(outcomes: Outcomes) -> None:
    (nodes,) = outcomes["capture"]["nodes"]
    assert nodes <= MOST_LAUNCHES


@pytest.mark.parametrize("case", ["capture", "capture, plain layers"])
def test_a_replay_is_one_launch_and_a_few_copies(case: str, outcomes: Outcomes) -> None:
    outcome = outcomes[case]
    assert (outcome["replays"], outcome["waits"], outcome["allocations"]) == (1, [], 0)
    assert outcome["work"] + outcome["replays"] <= MOST_CALLS_PER_REPLAY


def test_a_step_without_a_graph_launches_the_same_work(outcomes: Outcomes) -> None:
    (nodes,) = outcomes["capture"]["nodes"]
    assert outcomes["plain"]["work"] <= 1.02 * nodes


@pytest.mark.parametrize("case", ["plain", "plain, deterministic"])
def test_the_host_does_not_wait(case: str, outcomes: Outcomes) -> None:
    assert outcomes[case]["waits"] == []


def test_deterministic_algorithms_do_not_fill_memory(outcomes: Outcomes) -> None:
    limit = MOST_DETERMINISTIC_LAUNCHES * outcomes["plain"]["work"]
    assert outcomes["plain, deterministic"]["work"] <= limit


def test_reserved_memory(outcomes: Outcomes) -> None:
    assert outcomes["capture, batch 16"]["reserved"] <= MOST_RESERVED

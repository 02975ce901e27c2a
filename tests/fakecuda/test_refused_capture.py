"""A step that cannot be captured runs without a graph, and leaves the process as it was."""

from collections.abc import Callable

import pytest

from fakecuda.cases import Outcomes

pytestmark = pytest.mark.slow(reason="takes steps on the stand-in for CUDA")


@pytest.fixture(scope="module")
def outcomes(program: Callable[..., Outcomes]) -> Outcomes:
    return program("refused_capture")


@pytest.mark.parametrize("name", ["refused", "refused again"])
def test_the_run_continues_without_a_graph(name: str, outcomes: Outcomes) -> None:
    outcome = outcomes[name]
    assert not outcome["error"]
    assert outcome["launches"] > 0
    assert outcome["replays"] == 0


@pytest.mark.parametrize("name", ["refused", "refused again"])
def test_the_warning_gives_the_first_error(name: str, outcomes: Outcomes) -> None:
    """Not the one that follows from it, "operation failed due to a previous error during capture"."""
    (warning,) = outcomes[name]["warnings"]
    assert "training.capture: the step runs without a graph: " in warning
    assert "operation not permitted when stream is capturing" in warning


@pytest.mark.parametrize("name", ["random numbers", "random numbers again"])
def test_random_numbers_can_be_drawn_afterwards(name: str, outcomes: Outcomes) -> None:
    assert (outcomes[name]["error"], outcomes[name]["warnings"]) == ("", [])


def test_memory_can_be_freed_afterwards(outcomes: Outcomes) -> None:
    assert outcomes["empty cache"]["freed"] >= 200_000_000


def test_the_next_run_is_captured(outcomes: Outcomes) -> None:
    outcome = outcomes["next run"]
    assert (outcome["error"], outcome["warnings"]) == ("", [])
    assert outcome["replays"] > 0

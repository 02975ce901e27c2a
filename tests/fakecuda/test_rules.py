"""The stand-in itself: it permits and refuses what CUDA does."""

from collections.abc import Callable

import pytest

from fakecuda.cases import Outcomes

pytestmark = pytest.mark.slow(reason="runs a program on the stand-in for CUDA")

NODES = {
    "one stream": 1,
    "fork and join": 2,
    "fork and join twice": 4,
    "join through another stream": 2,
    "fork without work": 1,
    "random numbers": 2,
    "all_reduce": 1,
    "one stream, after errors": 1,
}
"""Functions that can be captured, with the number of nodes of their graphs."""

ERRORS = {
    "no join": ("cudaErrorStreamCaptureUnjoined", ""),
    "work after the join": ("cudaErrorStreamCaptureUnjoined", ""),
    "uncaptured work": ("cudaErrorStreamCaptureInvalidated", "recorded outside of the capture"),
    "synchronize": ("cudaErrorStreamCaptureInvalidated", "cudaStreamSynchronize of a captured stream"),
    "read a value": ("cudaErrorStreamCaptureInvalidated", "cudaStreamSynchronize of a captured stream"),
    "query an event": ("cudaErrorStreamCaptureInvalidated", "cudaEventQuery of an event of the capture"),
}
"""Functions that cannot, with CUDA's error at the end of the capture and the call that made it invalid."""


@pytest.fixture(scope="module")
def outcomes(program: Callable[..., Outcomes]) -> Outcomes:
    return program("rules", devices=2)


@pytest.mark.parametrize("name", NODES)
def test_what_can_be_captured(name: str, outcomes: Outcomes) -> None:
    outcome = outcomes[name]
    assert (outcome["error"], outcome["warnings"], outcome["message"], outcome["code"]) == ("", [], "", "")
    assert outcome["nodes"] == NODES[name]
    assert outcome["replays"] == [NODES[name]]


@pytest.mark.parametrize("name", ERRORS)
def test_what_cannot_be_captured(name: str, outcomes: Outcomes) -> None:
    code, reason = ERRORS[name]
    outcome = outcomes[name]
    assert not outcome["error"]
    assert outcome["message"].startswith("CUDA error: ")
    assert outcome["code"] == code
    assert reason in outcome["reason"]
    assert not outcome["replays"]


def test_random_numbers_can_be_drawn_after_refused_captures(outcomes: Outcomes) -> None:
    assert outcomes["random numbers, after errors"]["message"] == ""


def test_a_read_is_one_wait(outcomes: Outcomes) -> None:
    assert outcomes["read"]["waits"] == 1


def test_an_event_belongs_to_its_device(outcomes: Outcomes) -> None:
    assert "device" in outcomes["event of another device"]["message"]


def test_both_devices_run_kernels(outcomes: Outcomes) -> None:
    assert outcomes["copy between devices"]["counts"]["copy"] == 1
    assert outcomes["convolve on the second device"]["counts"]["kernel"] == 3

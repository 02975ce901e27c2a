"""Translations on CUDA: what the host asks for, and what the memory is used for."""

from collections.abc import Callable

import pytest

from fakecuda.cases import Outcomes

pytestmark = pytest.mark.slow(reason="translates with the paper's generator on the stand-in for CUDA")

MOST_LAUNCHES = 60
"""Kernels of a translation in bf16, whose weights are rounded in advance."""

BYTES_PER_PIXEL = 3 * 4


@pytest.fixture(scope="module")
def outcomes(program: Callable[..., Outcomes]) -> Outcomes:
    outcomes = program("translation", devices=2)
    problems = [
        problem for outcome in outcomes.values() for problem in (outcome["error"], *outcome["warnings"]) if problem
    ]
    assert not problems, problems[0]
    return outcomes


@pytest.mark.parametrize("case", ["batch 1", "batch 16", "fp32", "second device"])
def test_a_repeated_translation_is_one_graph_between_two_copies(case: str, outcomes: Outcomes) -> None:
    outcome = outcomes[case]
    assert outcome["problem"] == ""
    assert (outcome["launches"], len(outcome["replays"]), outcome["copies"], outcome["waits"]) == (0, 1, 2, 0)


def test_everything_runs_on_the_chosen_device(outcomes: Outcomes) -> None:
    assert outcomes["second device"]["devices"] == [1]


@pytest.mark.parametrize("case", ["batch 1", "batch 16"])
def test_nodes_of_the_graph(case: str, outcomes: Outcomes) -> None:
    assert outcomes[case]["replays"][0] <= MOST_LAUNCHES


def test_capture_can_be_disabled(outcomes: Outcomes) -> None:
    outcome = outcomes["without a graph"]
    assert (outcome["replays"], outcome["waits"]) == ([], 0)
    assert 0 < outcome["launches"] <= MOST_LAUNCHES


def test_a_refused_capture_is_explained_and_not_tried_again(outcomes: Outcomes) -> None:
    outcome = outcomes["refused"]
    assert "operation not permitted when stream is capturing" in outcome["problem"]
    assert (outcome["captures"], outcome["replays"]) == (1, [])


def test_a_generator_that_draws_random_numbers_is_not_captured(outcomes: Outcomes) -> None:
    assert (outcomes["random numbers"]["captures"], outcomes["random numbers"]["problem"]) == (0, "")


def test_threads_share_a_graph(outcomes: Outcomes) -> None:
    outcome = outcomes["threads"]
    assert (outcome["errors"], outcome["problem"]) == ([], "")
    assert (outcome["captures"], len(outcome["replays"])) == (1, 13)


def test_graphs_are_released_with_their_translator(outcomes: Outcomes) -> None:
    """Only the weights, a few kilobytes here, wait for the garbage collector."""
    assert outcomes["release"]["bytes"] < 100_000


def test_tiles_are_copied_to_the_device_twice_and_back_once(outcomes: Outcomes) -> None:
    copied = outcomes["tiles"]["copied"]
    tiles, padded, side = 4, 512 + 84, 1024
    assert copied["pageable to device"] == 2 * tiles * padded**2 * BYTES_PER_PIXEL
    assert copied["device to pageable"] == side**2 * BYTES_PER_PIXEL


@pytest.mark.parametrize("case", ["tiles on the device", "tiles with a slow host", "tiles without a cache"])
def test_features_are_not_copied_to_the_host(case: str, outcomes: Outcomes) -> None:
    assert set(outcomes[case]["copied"]) == {"device to device"}


def test_features_beyond_the_memory_of_the_device_are_copied_without_waiting(outcomes: Outcomes) -> None:
    outcome = outcomes["tiles on the host"]
    assert set(outcome["copied"]) == {"device to device", "device to pinned", "pinned to device"}
    assert outcome["waits"] <= 4  # for the time of the first pass, once for each tile


def test_features_that_stay_are_not_computed_again(outcomes: Outcomes) -> None:
    once = outcomes["tiles on the device"]["launches"]
    assert outcomes["tiles on the host"]["launches"] == once
    assert outcomes["tiles without a cache"]["launches"] == outcomes["tiles with a slow host"]["launches"] > 3 * once

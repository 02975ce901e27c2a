"""Metrics compute on the device of their images, and leave nothing there."""

from collections.abc import Callable

import pytest

from fakecuda.cases import Outcomes

pytestmark = pytest.mark.slow(reason="measures images on the stand-in for CUDA")

METRICS = ["l1", "psnr", "ssim", "label_maps", "fcn_score", "fid", "kid"]
CASES = [*METRICS, *(f"{name}, deterministic" for name in METRICS)]

MOST_CONSTANT_BYTES = 1000
"""Of the tables and factors that a batch copies to the device, or that stay there."""


@pytest.fixture(scope="module")
def outcomes(program: Callable[..., Outcomes]) -> Outcomes:
    return program("metrics", devices=2)


@pytest.mark.parametrize("case", CASES)
def test_a_metric_computes_on_the_device_without_copying_images(case: str, outcomes: Outcomes) -> None:
    outcome = outcomes[case]
    assert (outcome["error"], outcome["warnings"]) == ("", [])
    assert outcome["launches"] > 0
    assert outcome["devices"] == [1]
    assert set(outcome["copied"]) <= {"pageable to device", "device to device"}
    assert outcome["copied"].get("pageable to device", 0) < MOST_CONSTANT_BYTES


@pytest.mark.parametrize("case", CASES)
def test_a_metric_that_is_reset_uses_no_memory_of_the_device(case: str, outcomes: Outcomes) -> None:
    assert outcomes[case]["bytes"] < MOST_CONSTANT_BYTES


def test_a_metric_that_does_not_declare_any_device_gets_images_on_the_cpu(outcomes: Outcomes) -> None:
    outcome = outcomes["third party"]
    assert not outcome["error"]
    images, bytes_per_image = 2 * 4, 3 * 64 * 64 * 4
    assert outcome["copied"] == {"device to pageable": images * bytes_per_image}


def test_validation_frees_what_it_used(outcomes: Outcomes) -> None:
    outcome = outcomes["validation"]
    assert (outcome["error"], outcome["warnings"]) == ("", [])
    assert outcome["values"] == ["A2B/kid", "B2A/kid"]
    assert outcome["devices"] == [1]
    allocated, reserved = outcome["bytes"]
    assert allocated < MOST_CONSTANT_BYTES
    assert reserved <= 0

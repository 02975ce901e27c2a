"""Steps of every recipe, in every precision, with and without capture and deterministic algorithms."""

import re
from collections.abc import Callable

import pytest

from fakecuda.cases import Outcomes
from fakecuda.recipes import RECIPES

pytestmark = pytest.mark.slow(reason="takes steps of every recipe on the stand-in for CUDA: two minutes per precision")

OBSTACLES = {
    "ada": "adapts to its logits",
    "diffaugment": "adapts to its logits",
    "gatys": "its system has no phases",
    "rmsprop": "the optimizer of G has no fused form",
}
"""Recipes whose steps are not captured, with the reason that the warning gives. All others are."""

REFUSALS = {
    "ada": "TrainingError: training.deterministic is true, but grid_sampler_2d_backward_cuda has no deterministic"
}
"""Recipes that cannot train with deterministic algorithms, with the error that says so."""


@pytest.fixture(scope="module", params=["fp32", "tf32", "bf16", "fp16"])
def outcomes(request: pytest.FixtureRequest, program: Callable[..., Outcomes]) -> Outcomes:
    return program("recipes", request.param)


@pytest.mark.parametrize("deterministic", [False, True], ids=["any algorithms", "deterministic"])
@pytest.mark.parametrize("capture", [False, True], ids=["plain", "capture"])
@pytest.mark.parametrize("name", RECIPES)
def test_steps(name: str, capture: bool, deterministic: bool, outcomes: Outcomes) -> None:
    outcome = outcomes[f"{name} {capture:d}{deterministic:d}"]
    if deterministic and name in REFUSALS:
        assert re.search(REFUSALS[name], outcome["error"])
        return
    assert not outcome["error"]
    if capture and name in OBSTACLES:
        (warning,) = outcome["warnings"]
        assert re.search(f"training.capture: the step runs without a graph: .*{OBSTACLES[name]}", warning)
        assert not outcome["replays"]
    else:
        assert not outcome["warnings"]
        assert outcome["replays"] == (2 if capture else 0)
        assert all(nodes > 0 for nodes in outcome["nodes"])

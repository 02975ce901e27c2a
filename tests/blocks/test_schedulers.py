import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gantoolkit.blocks.schedulers import Constant, ConstantThenLinear, Cosine, Plateau, Step
from gantoolkit.errors import RecipeError


def test_schedule_of_the_paper() -> None:
    schedule = ConstantThenLinear()
    factors = [schedule.multiplier(epoch, 200) for epoch in range(200)]
    assert factors[:100] == [1.0] * 100
    assert factors[100] == pytest.approx(1 - 1 / 101)
    assert factors[199] == pytest.approx(1 - 100 / 101)


@pytest.mark.parametrize(
    ("zero", "expected"),
    [  # epochs 100, 101, 102 and 200 of 200, counted from 1
        ("after", [1, 100 / 101, 99 / 101, 1 / 101]),
        ("last", [100 / 101, 99 / 101, 98 / 101, 0]),
        ("lua", [1, 1, 0.99, 0.01]),
    ],
)
def test_options_for_the_end_of_the_decay(zero, expected: list[float]) -> None:
    schedule = ConstantThenLinear(zero=zero)
    assert [schedule.multiplier(epoch - 1, 200) for epoch in (100, 101, 102, 200)] == pytest.approx(expected)
    assert [schedule.multiplier(epoch - 1, 1) for epoch in (1,)] == [
        1.0
    ]  # a run of one epoch has the full learning rate


@given(epochs=st.integers(1, 300), decay=st.none() | st.integers(0, 400))
def test_schedule_is_constant_then_linear_then_zero(epochs: int, decay: int | None) -> None:
    schedule = ConstantThenLinear(decay_epochs=decay)
    factors = [schedule.multiplier(epoch, epochs) for epoch in range(epochs + 5)]
    falling = min(epochs // 2 if decay is None else decay, epochs)
    assert factors[: epochs - falling] == [1.0] * (epochs - falling)
    steps = [
        a - b for a, b in zip(factors[epochs - falling :], factors[epochs - falling + 1 : epochs + 1], strict=False)
    ]
    assert all(step == pytest.approx(1 / (falling + 1)) for step in steps[:falling])
    assert factors[epochs:] == [0.0] * 5
    assert min(factors) >= 0


@given(epochs=st.integers(1, 100), final=st.floats(0, 1))
def test_cosine_decays_from_one_to_final(epochs: int, final: float) -> None:
    schedule = Cosine(final=final)
    factors = [schedule.multiplier(epoch, epochs) for epoch in range(epochs + 1)]
    assert factors[0] == 1
    assert factors[-1] == pytest.approx(final)
    assert all(a >= b - 1e-12 for a, b in itertools.pairwise(factors))


def test_step_and_constant() -> None:
    assert [Step(every=2, factor=0.5).multiplier(epoch, 9) for epoch in range(5)] == [1, 1, 0.5, 0.5, 0.25]
    assert {Constant().multiplier(epoch, 9) for epoch in range(20)} == {1.0}


def test_plateau_reduces_factor_after_patience() -> None:
    schedule = Plateau(metric="G/cycle_A", factor=0.5, patience=1, threshold=0.01)
    factors = []
    for value in [10.0, 9.0, 8.99, 8.98, 5.0, 5.0, 5.0, 5.0]:
        schedule.observe({"G/cycle_A": value, "other": 0.0})
        factors.append(schedule.multiplier(0, 9))
    assert factors == [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25]


def test_plateau_lists_available_metrics() -> None:
    with pytest.raises(RecipeError, match="no metric 'G/total'; known: D/total, G/cycle_A"):
        Plateau().observe({"G/cycle_A": 1.0, "D/total": 2.0})


def test_restored_plateau_continues() -> None:
    schedule, restored = Plateau(patience=2, factor=0.5), Plateau(patience=2, factor=0.5)
    for value in (1.0, 1.0, 1.0):
        schedule.observe({"G/total": value})
    restored.load_state_dict(schedule.state_dict())
    for plateau in (schedule, restored):
        plateau.observe({"G/total": 1.0})
        assert plateau.multiplier(0, 1) == 0.5

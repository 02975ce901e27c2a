"""Rules of schedulers."""

import math
from typing import Any

from hypothesis import strategies as st

from gantoolkit.plugins import ObservingScheduler
from gantoolkit.testing.kit import Draw, NotApplicable, Rulebook, Subject, expect
from gantoolkit.testing.rules.common import add_schema_rule

__all__ = ["schedulers"]

schedulers = Rulebook("schedulers", examples=30)
add_schema_rule(schedulers)


class _EveryMetric(dict[str, float]):
    """Epoch means that hold the same value under every metric name."""

    def __init__(self, value: float) -> None:
        super().__init__({"G/total": value})
        self.value = value

    def __contains__(self, name: object) -> bool:
        return True

    def __missing__(self, name: str) -> float:
        return self.value


def observe(scheduler: Any, draw: Draw) -> None:
    """Pass the metrics of some epochs to a scheduler that observes them."""
    if isinstance(scheduler, ObservingScheduler):
        for value in draw(st.lists(st.floats(-10, 100), max_size=30), "a metric by epoch"):
            scheduler.observe(_EveryMetric(value))


@schedulers.rule
def is_non_negative(subject: Subject, draw: Draw) -> None:
    """`multiplier` returns a finite float ≥ 0 for every epoch of a run, and for epochs after its end."""
    scheduler, epochs = subject.make(), draw(st.integers(1, 300), "epochs")
    observe(scheduler, draw)
    for epoch in range(epochs + 3):
        factor = scheduler.multiplier(epoch, epochs)
        expect(
            isinstance(factor, float | int) and math.isfinite(factor) and factor >= 0,
            f"the multiplier of epoch {epoch} of {epochs} is {factor!r}",
        )


@schedulers.rule
def is_not_always_zero(subject: Subject, draw: Draw) -> None:
    """`multiplier` is above 0 in at least one epoch of every run, so that the networks are trained."""
    scheduler, epochs = subject.make(), draw(st.integers(1, 300), "epochs")
    factors = [scheduler.multiplier(epoch, epochs) for epoch in range(epochs)]
    expect(max(factors) > 0, f"all multipliers of a run of {epochs} epochs are 0")


@schedulers.rule
def depends_on_epoch_only(subject: Subject, draw: Draw) -> None:
    """`multiplier` does not depend on earlier calls: a resumed run, which skips past epochs, has the same learning rates."""
    scheduler, resumed, epochs = subject.make(), subject.make(), draw(st.integers(1, 100), "epochs")
    start = draw(st.integers(0, epochs - 1), "first epoch of the resumed run")
    whole = [scheduler.multiplier(epoch, epochs) for epoch in range(epochs)][start:]
    rest = [resumed.multiplier(epoch, epochs) for epoch in range(start, epochs)]
    expect(whole == rest, f"from epoch {start} on, multipliers are {whole[:3]}, but {rest[:3]} in a resumed run")


@schedulers.rule
def restores_state(subject: Subject, draw: Draw) -> None:
    """If the scheduler observes metrics, its `state_dict` holds numbers only, and all that `multiplier` depends on: another
    scheduler that loads it continues alike.
    """
    if not isinstance(subject.make(), ObservingScheduler):
        raise NotApplicable("it does not observe metrics")
    scheduler, other = subject.make(), subject.make()
    observe(scheduler, draw)
    state = scheduler.state_dict()
    wrong = [name for name, value in state.items() if not isinstance(value, float | int)]
    expect(not wrong, f"{', '.join(wrong)} in its state is not a number")
    other.load_state_dict(dict(state))
    later = draw(st.lists(st.floats(0, 100), min_size=10, max_size=20), "the metric in later epochs")
    for value in later:
        scheduler.observe(_EveryMetric(value))
        other.observe(_EveryMetric(value))
        expected_factor, factor = (restored.multiplier(50, 100) for restored in (scheduler, other))
        expect(expected_factor == factor, f"the multiplier is {expected_factor}, but {factor} after restoring")

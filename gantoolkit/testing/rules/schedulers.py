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
    """The means of an epoch, whatever the name of the metric."""

    def __init__(self, value: float) -> None:
        super().__init__({"G/total": value})
        self.value = value

    def __contains__(self, name: object) -> bool:
        return True

    def __missing__(self, name: str) -> float:
        return self.value


def observe(scheduler: Any, draw: Draw) -> None:
    """Show a scheduler that follows a metric some epochs."""
    if isinstance(scheduler, ObservingScheduler):
        for value in draw(st.lists(st.floats(-10, 100), max_size=30), "a metric by epoch"):
            scheduler.observe(_EveryMetric(value))


@schedulers.rule
def is_non_negative(subject: Subject, draw: Draw) -> None:
    """The factor on the rates is a finite float ≥ 0 in every epoch of every run, and after it."""
    scheduler, epochs = subject.make(), draw(st.integers(1, 300), "epochs")
    observe(scheduler, draw)
    for epoch in range(epochs + 3):
        factor = scheduler.multiplier(epoch, epochs)
        expect(
            isinstance(factor, float | int) and math.isfinite(factor) and factor >= 0,
            f"epoch {epoch} of {epochs} has the factor {factor!r}",
        )


@schedulers.rule
def starts_above_zero(subject: Subject, draw: Draw) -> None:
    """Some epoch of every run has a factor above 0, so that something is learned."""
    scheduler, epochs = subject.make(), draw(st.integers(1, 300), "epochs")
    factors = [scheduler.multiplier(epoch, epochs) for epoch in range(epochs)]
    expect(max(factors) > 0, f"all factors of a run of {epochs} epochs are 0")


@schedulers.rule
def depends_on_epoch_only(subject: Subject, draw: Draw) -> None:
    """`multiplier` keeps no count of its calls: a resumed run, which does not ask again for past epochs, has the same rates."""
    scheduler, resumed, epochs = subject.make(), subject.make(), draw(st.integers(1, 100), "epochs")
    start = draw(st.integers(0, epochs - 1), "epoch of the resumption")
    whole = [scheduler.multiplier(epoch, epochs) for epoch in range(epochs)][start:]
    rest = [resumed.multiplier(epoch, epochs) for epoch in range(start, epochs)]
    expect(whole == rest, f"factors from epoch {start} on are {rest[:3]} after a resumption, else {whole[:3]}")


@schedulers.rule
def restores_state(subject: Subject, draw: Draw) -> None:
    """Where it follows a metric, its `state_dict` holds all that it has learned, as floats; a new one that loads it goes on
    alike.
    """
    scheduler: Any = subject.make()
    if not isinstance(scheduler, ObservingScheduler):
        raise NotApplicable("it observes nothing")
    other: Any = subject.make()
    both: tuple[Any, Any] = (scheduler, other)
    observe(scheduler, draw)
    state = scheduler.state_dict()
    wrong = [name for name, value in state.items() if not isinstance(value, float | int)]
    expect(not wrong, f"in its state, {', '.join(wrong)} is no number")
    other.load_state_dict(dict(state))
    later = draw(st.lists(st.floats(0, 100), min_size=10, max_size=20), "the metric afterwards")
    for value in later:
        scheduler.observe(_EveryMetric(value))
        other.observe(_EveryMetric(value))
        here, there = (made.multiplier(50, 100) for made in both)
        expect(here == there, f"the factor is {here}, and {there} after restoring")

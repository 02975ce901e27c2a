"""`gantoolkit ablate` shares time among trials: turns, failures, deadlines and interruptions, with stand-ins for processes."""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gantoolkit.evaluation.ablation import Trial
from gantoolkit.evaluation.ablation import forecast as forecasting
from gantoolkit.evaluation.ablation.forecast import Forecast, choose_jobs, count_calls
from gantoolkit.evaluation.ablation.turns import SHORTEST_TURN_S, Turns, turn_seconds
from gantoolkit.recipes import cyclegan

RECIPE = cyclegan()


class FakeProcess:
    """Trains for some seconds of a clock, and saves for one second when it is terminated."""

    def __init__(
        self, clock: "Clock", seconds: float, code: int = 0, *, hangs: bool = False, start_s: float = 0.0
    ) -> None:
        self.clock, self.started_at, self.hangs = clock, clock.now + start_s, hangs
        self.ends_at, self.code = clock.now + start_s + seconds, code

    def is_training(self) -> bool:
        return self.clock.now >= self.started_at

    def poll(self) -> int | None:
        return None if self.clock.now < self.ends_at else self.code

    def terminate(self) -> None:
        if not self.hangs:
            self.ends_at, self.code = self.clock.now + 1, 143

    def kill(self) -> None:
        self.ends_at, self.code = self.clock.now, -9


class Clock:
    now = 0.0

    def wait(self, seconds: float) -> None:
        self.now += seconds


def make_trials(count: int) -> list[Trial]:
    return [Trial(f"recipe-{number}", 0, RECIPE, Path(f"out/{number}")) for number in range(count)]


def share(
    trials: Sequence[Trial], seconds: dict[Trial, float], *, slots: int, deadline: float | None, **options
) -> tuple[Turns, dict[Trial, float], Clock]:
    """Train trials that need `seconds` each; returns the turns, the seconds that each was trained, and the clock."""
    clock = Clock()
    processes: list[tuple[Trial, FakeProcess]] = []
    trained = dict.fromkeys(trials, 0.0)

    def start(trial: Trial, slot: int) -> FakeProcess:
        assert slot < slots
        done = sum(min(clock.now, process.ends_at) - process.started_at for own, process in processes if own is trial)
        process = FakeProcess(clock, seconds[trial] - done, **options)
        processes.append((trial, process))
        assert sum(process.poll() is None for _, process in processes) <= slots
        return process

    turns = Turns(slots, start, clock=lambda: clock.now, pause=clock.wait)
    turns.run(trials, deadline=deadline)
    for trial, process in processes:
        trained[trial] += max(0.0, process.ends_at - process.started_at)
    return turns, trained, clock


@given(count=st.integers(1, 14), slots=st.integers(1, 14), seconds=st.floats(1, 500))
def test_without_a_deadline_every_trial_is_finished(count: int, slots: int, seconds: float) -> None:
    trials = make_trials(count)
    turns, trained, _ = share(trials, dict.fromkeys(trials, seconds), slots=slots, deadline=None)
    assert set(turns.outcomes.values()) == {"finished"}
    assert len(turns.outcomes) == count
    assert all(value == pytest.approx(seconds) for value in trained.values())


@given(count=st.integers(1, 14), slots=st.integers(1, 14))
def test_every_trial_has_its_share_before_the_deadline(count: int, slots: int) -> None:
    trials, deadline = make_trials(count), 480.0
    turns, trained, clock = share(trials, dict.fromkeys(trials, 10_000.0), slots=slots, deadline=deadline)
    assert set(turns.outcomes.values()) == {"stopped"}
    least = deadline / -(-count // slots)
    assert min(trained.values()) >= least - 16  # a process takes time to save
    assert clock.now <= deadline + 2


def test_a_trial_that_ends_early_leaves_its_time_to_the_others() -> None:
    trials = make_trials(3)
    seconds = dict(zip(trials, (5.0, 300.0, 300.0), strict=True))
    turns, trained, _ = share(trials, seconds, slots=1, deadline=300.0)
    assert [turns.outcomes[trial] for trial in trials] == ["finished", "stopped", "stopped"]
    assert sum(trained.values()) == pytest.approx(300, abs=5)
    assert trained[trials[1]] == pytest.approx(trained[trials[2]], abs=30)


def test_a_stopped_trial_gets_another_turn() -> None:
    trials = make_trials(2)
    seconds = dict(zip(trials, (200.0, 5.0), strict=True))
    turns, trained, _ = share(trials, seconds, slots=1, deadline=300.0)
    assert set(turns.outcomes.values()) == {"finished"}
    assert trained[trials[0]] >= 200


def test_a_process_that_starts_slowly_trains_nevertheless() -> None:
    """Otherwise, calls whose turns are shorter than a start would never get further."""
    trials = make_trials(8)
    _, trained, clock = share(trials, dict.fromkeys(trials, 10_000.0), slots=2, deadline=480.0, start_s=100.0)
    values = list(trained.values())
    assert min(values[:4]) >= SHORTEST_TURN_S  # the others are the first of the next call
    assert clock.now <= 482
    _, trained, _ = share(trials, dict.fromkeys(trials, 10_000.0), slots=2, deadline=480.0, start_s=40.0)
    assert min(trained.values()) >= SHORTEST_TURN_S


def test_a_failed_trial_does_not_stop_the_others() -> None:
    trials = make_trials(3)
    clock = Clock()

    def start(trial: Trial, slot: int) -> FakeProcess:
        return FakeProcess(clock, 10, code=2 if trial is trials[0] else 0)

    turns = Turns(1, start, clock=lambda: clock.now, pause=clock.wait)
    assert list(turns.run(trials).values()) == ["failed", "finished", "finished"]
    assert clock.now == pytest.approx(30, abs=1)  # the failed one is not tried again


def test_a_process_that_does_not_stop_is_killed() -> None:
    trials = make_trials(1)
    turns, _, clock = share(trials, {trials[0]: 10_000.0}, slots=1, deadline=60.0, hangs=True)
    assert turns.outcomes[trials[0]] == "stopped"
    assert 170 < clock.now < 190


def test_an_interruption_stops_all_processes_and_starts_none() -> None:
    trials, clock, processes = make_trials(4), Clock(), []

    def start(trial: Trial, slot: int) -> FakeProcess:
        processes.append(FakeProcess(clock, 100))
        return processes[-1]

    turns = Turns(2, start, clock=lambda: clock.now, pause=clock.wait)
    outcomes = turns.run(trials, is_interrupted=lambda: clock.now >= 10)
    assert list(outcomes.values()) == ["stopped", "stopped"]
    assert len(processes) == 2
    assert clock.now == pytest.approx(11, abs=0.5)


def test_an_error_kills_all_processes() -> None:
    clock, processes = Clock(), []

    def start(trial: Trial, slot: int) -> FakeProcess:
        processes.append(FakeProcess(clock, 1e9))
        return processes[-1]

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Turns(2, start, clock=lambda: clock.now, pause=interrupt).run(make_trials(3))
    assert [process.poll() for process in processes] == [-9, -9]


def test_a_turn_is_not_shorter_than_a_start_is_worth() -> None:
    assert turn_seconds(0, 60, waiting=100, slots=1) == SHORTEST_TURN_S
    assert turn_seconds(20, 60, waiting=2, slots=2) == 40
    assert turn_seconds(0, None, waiting=2, slots=1) == float("inf")


def test_calls_are_counted_from_the_slowest_trial_or_from_the_sum() -> None:
    first, second, third = make_trials(3)
    forecasts = [
        Forecast(first, 0, 100, None, 1.0),
        Forecast(second, 50, 100, None, 1.0),
        Forecast(third, 9, 9, None, None),
    ]
    assert count_calls(forecasts, 3, 60.0) == 2  # 100 s
    assert count_calls(forecasts, 1, 60.0) == 3  # 150 s
    assert count_calls(forecasts[2:], 1, 60.0) == 0
    assert count_calls([Forecast(first, 0, 100, None, None)], 1, 60.0) is None


def test_as_many_runs_train_at_once_as_fit_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecasting, "available_memory", lambda device: 80_000)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(16))
    forecasts = [Forecast(trial, 0, 10, 9_000, None) for trial in make_trials(13)]
    assert choose_jobs(forecasts, ["cpu"]) == 1
    assert choose_jobs(forecasts, ["cuda:0"]) == 8
    assert choose_jobs(forecasts, ["cuda:0", "cuda:1"]) == 13  # all of them
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(4))  # each process needs a core
    assert choose_jobs(forecasts, ["cuda:0", "cuda:1"]) == 4
    assert choose_jobs([Forecast(make_trials(1)[0], 0, 10, 90_000, None)], ["cuda:0"]) == 1


@pytest.mark.parametrize("code", [-9, -15, 1])
def test_a_process_that_is_killed_by_someone_else_has_failed(code: int) -> None:
    """By the system if memory runs out, for example."""
    (trial,) = trials = make_trials(1)
    turns, _, _ = share(trials, {trial: 10.0}, slots=1, deadline=None, code=code)
    assert turns.outcomes == {trial: "failed"}

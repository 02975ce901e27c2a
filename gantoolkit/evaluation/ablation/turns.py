"""Share time among trials: several train at once, in turns if there are more, until all are finished or time is up."""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from gantoolkit.evaluation.ablation.trials import Trial

__all__ = ["Outcome", "Process", "Turn", "Turns", "turn_seconds"]

SHORTEST_TURN_S = 30.0
"""The time that a turn trains at least, apart from the seconds that its process needs to start."""
_GRACE_S = 120.0
"""The time that a stopped process has to save before it is killed."""
_PAUSE_S = 0.1


class Process(Protocol):
    """A process that trains a trial: it saves and exits when it is terminated."""

    def poll(self) -> int | None:
        """The exit code; None while it runs."""
        ...

    def is_training(self) -> bool:
        """Whether it has reported a step, so that the time that it took to start is over."""
        ...

    def terminate(self) -> None: ...

    def kill(self) -> None: ...


Outcome = Literal["finished", "stopped", "failed"]

_OUTCOMES: dict[int, Outcome] = {
    0: "finished",
    130: "stopped",
    143: "stopped",
}
"""By exit code."""


@dataclass
class Turn:
    """A process that trains a trial in a slot, and how long it is to train after its start, in seconds."""

    trial: Trial
    slot: int
    process: Process
    length: float
    started_at: float
    trains_since: float | None = None
    terminated_at: float | None = None

    def is_over(self, now: float) -> bool:
        """Whether the process has trained for as long as it is to; how long it took to start does not count."""
        if self.trains_since is None and self.process.is_training():
            self.trains_since = now
        return self.trains_since is not None and now - self.trains_since >= self.length

    def outcome(self) -> Outcome:
        """The outcome of the process, which has exited. What kills a process that was not told to stop is a failure."""
        code = self.process.poll() or 0
        is_killed = code < 0 and self.terminated_at is not None
        return "stopped" if is_killed else _OUTCOMES.get(code, "failed")

    def stop(self, now: float) -> None:
        """Let the process save and exit; kill it if it has not done so after two minutes."""
        if self.terminated_at is None:
            self.terminated_at = now
            self.process.terminate()
        elif now - self.terminated_at > _GRACE_S:
            self.process.kill()


@dataclass
class Turns:
    """Trains trials in slots. Each trial gets a turn before one of them gets a second.

    Args:
        slots: The number of trials that train at once.
        start: Starts the process of a trial in a slot.
        clock: The time in seconds.
        pause: Waits.
    """

    slots: int
    start: Callable[[Trial, int], Process]
    clock: Callable[[], float] = time.monotonic
    pause: Callable[[float], None] = time.sleep
    running: list[Turn] = field(default_factory=list)
    start_seconds: list[float] = field(default_factory=list)
    outcomes: dict[Trial, Outcome] = field(default_factory=dict)

    def run(
        self,
        trials: Sequence[Trial],
        *,
        deadline: float | None = None,
        is_interrupted: Callable[[], bool] = lambda: False,
        watch: Callable[[Sequence[Turn]], None] = lambda running: None,
    ) -> dict[Trial, Outcome]:
        """Train until all trials are finished or have failed, the deadline has passed, or the call is interrupted.

        Args:
            trials: In the order of their first turns.
            deadline: When to stop, on the clock.
            is_interrupted: Whether to stop now.
            watch: Called many times while processes run.

        Returns:
            The outcome of each trial that had a turn.
        """
        fresh, again = list(trials), []
        try:
            while True:
                now = self.clock()
                again += self._collect()
                is_over = is_interrupted() or (deadline is not None and now >= deadline)
                for turn in self.running:
                    if is_over or turn.is_over(now):
                        turn.stop(now)
                if not is_over:
                    self._fill(fresh or again, now, deadline)
                if not self.running:
                    return self.outcomes
                watch(self.running)
                self.pause(_PAUSE_S)
        finally:
            for turn in self.running:
                turn.process.kill()

    def _collect(self) -> list[Trial]:
        """Take away the processes that have exited; the trials that want another turn."""
        exited = [turn for turn in self.running if turn.process.poll() is not None]
        self.running = [turn for turn in self.running if turn not in exited]
        for turn in exited:
            self.outcomes[turn.trial] = turn.outcome()
            if turn.trains_since is not None:
                self.start_seconds.append(turn.trains_since - turn.started_at)
        # A process that stops before its turn ends was stopped by someone else.
        return [turn.trial for turn in exited if turn.terminated_at is not None and self._wants_more(turn.trial)]

    def _wants_more(self, trial: Trial) -> bool:
        return self.outcomes[trial] == "stopped"

    def _fill(self, waiting: list[Trial], now: float, deadline: float | None) -> None:
        """Start turns in free slots."""
        free = sorted(set(range(self.slots)) - {turn.slot for turn in self.running})
        for slot in free[: len(waiting)]:
            if deadline is not None and self.outcomes and deadline - now < SHORTEST_TURN_S:
                return
            start_s = statistics.fmean(self.start_seconds or [0.0])
            length = turn_seconds(now, deadline, waiting=len(waiting), slots=self.slots, start_s=start_s)
            trial = waiting.pop(0)
            self.running.append(Turn(trial, slot, self.start(trial, slot), length, now))


def turn_seconds(now: float, deadline: float | None, *, waiting: int, slots: int, start_s: float = 0.0) -> float:
    """How long the next turn trains: an equal share of the time left for each waiting trial, but not less than 30 seconds.

    Args:
        now: The time.
        deadline: When all turns end.
        waiting: The number of trials that wait for a turn.
        slots: The number of trials that train at once.
        start_s: Seconds that a process needs to start.

    >>> turn_seconds(0.0, 480.0, waiting=13, slots=13), turn_seconds(0.0, 480.0, waiting=13, slots=4, start_s=20.0)
    (480.0, 100.0)
    """
    if deadline is None:
        return math.inf
    return max(SHORTEST_TURN_S, (deadline - now) / math.ceil(waiting / slots) - start_s)

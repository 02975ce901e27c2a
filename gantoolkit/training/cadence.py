"""Cadence: at which steps a run logs, draws samples, evaluates and saves."""

from dataclasses import dataclass

from gantoolkit.recipes import TrainingSettings

__all__ = ["Cadence"]


@dataclass(frozen=True)
class Cadence:
    """Answers what is due after a step. Steps are counted from 1: step 1 is the first that is done.

    Args:
        settings: The intervals.
        steps_per_epoch: Steps in an epoch.
        stop_at: The step at which this session stops; by default, the last one.
    """

    settings: TrainingSettings
    steps_per_epoch: int
    stop_at: int | None = None

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.settings.epochs * self.steps_per_epoch

    @property
    def stop(self) -> int:
        """The last step of this session."""
        return self.steps if self.stop_at is None else min(self.stop_at, self.steps)

    def epoch_of(self, step: int) -> int:
        """The epoch of a step, counted from 0."""
        return (step - 1) // self.steps_per_epoch

    def ends_epoch(self, step: int) -> bool:
        """Whether a step is the last of its epoch."""
        return step % self.steps_per_epoch == 0

    def logs(self, step: int) -> bool:
        """Whether the log gets a row after a step."""
        return step % self.settings.log_every == 0

    def samples(self, step: int) -> bool:
        """Whether a grid of samples is drawn after a step; the grid of the last step is drawn when the run ends."""
        return step % self.settings.sample_every == 0 and step < self.steps

    def evaluates(self, step: int) -> bool:
        """Whether the metric is measured after a step."""
        every = self.settings.evaluate_every
        return bool(every) and (step % every == 0 or step == self.steps)

    def saves(self, step: int) -> bool:
        """Whether a checkpoint is saved after a step; that of the last step is saved when the session ends."""
        return step % self.settings.checkpoint_every == 0 and step < self.stop

    def uses_networks(self, step: int) -> bool:
        """Whether the networks are used or saved after a step, so that their weights must be checked first."""
        return step == self.stop or self.samples(step) or self.evaluates(step) or self.saves(step)

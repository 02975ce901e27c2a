"""Learning rate schedules: a factor on the learning rate of every optimizer, by epoch from 0."""

import math
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from gantoolkit.errors import RecipeError


class Constant:
    """Constant learning rate."""

    def multiplier(self, epoch: int, epochs: int) -> float:
        return 1.0


class ConstantThenLinear:
    """Constant at first, then linear decay to zero (Zhu et al. 2017, §4).

    Args:
        decay_epochs: Epochs of decay; by default the second half of the run (the paper: 100 of 200).
        zero: Where the factor reaches zero. `after`: in the epoch after the last, as in the official PyTorch implementation
            before July 2020. `last`: in the last epoch, as in that implementation since. `lua`: as in the authors' first code,
            in the epoch after the last, with the first epoch of the decay still at the full learning rate.
    """

    def __init__(
        self,
        *,
        decay_epochs: Annotated[int, Field(ge=0)] | None = None,
        zero: Literal["after", "last", "lua"] = "after",
    ) -> None:
        self.decay_epochs = decay_epochs
        self.zero = zero

    def multiplier(self, epoch: int, epochs: int) -> float:
        decay_epochs = epochs // 2 if self.decay_epochs is None else min(self.decay_epochs, epochs)
        shift, parts = {"after": (1, decay_epochs + 1), "last": (2, decay_epochs + 1), "lua": (0, decay_epochs)}[
            self.zero
        ]
        # With decay_epochs = 0, the factor is 1 up to the last epoch and 0 afterwards.
        decayed = max(0, epoch + (shift if decay_epochs else 1) - (epochs - decay_epochs))
        return max(0.0, 1 - decayed / max(1, parts))


class Cosine:
    """Cosine decay from the full learning rate to `final`.

    Args:
        final: Factor at the end.
    """

    def __init__(self, *, final: Annotated[float, Field(ge=0, le=1)] = 0.0) -> None:
        self.final = final

    def multiplier(self, epoch: int, epochs: int) -> float:
        progress = min(1.0, epoch / epochs)
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * progress)) / 2


class Step:
    """Multiply the learning rate by `factor` after every `every` epochs.

    Args:
        every: Epochs between two reductions.
        factor: Factor of each reduction.
    """

    def __init__(
        self, *, every: Annotated[int, Field(ge=1)] = 50, factor: Annotated[float, Field(gt=0, le=1)] = 0.1
    ) -> None:
        self.every = every
        self.factor = factor

    def multiplier(self, epoch: int, epochs: int) -> float:
        return self.factor ** (epoch // self.every)


class Plateau:
    """Multiply the learning rate by `factor` whenever a metric has stopped falling.

    Args:
        metric: Logged name to observe, such as `G/cycle_A`, as its mean over each epoch.
        factor: Factor of each reduction.
        patience: Epochs without improvement to wait before a reduction.
        threshold: Minimum relative change that counts as an improvement.
    """

    def __init__(
        self,
        *,
        metric: str = "G/total",
        factor: Annotated[float, Field(gt=0, lt=1)] = 0.2,
        patience: Annotated[int, Field(ge=0)] = 5,
        threshold: Annotated[float, Field(ge=0, lt=1)] = 0.01,
    ) -> None:
        self.metric = metric
        self.factor = factor
        self.patience = patience
        self.threshold = threshold
        self._best = math.inf
        self._bad_epochs = 0
        self._factor = 1.0

    def multiplier(self, epoch: int, epochs: int) -> float:
        return self._factor

    def observe(self, metrics: Mapping[str, float]) -> None:
        """Update the schedule with the metrics of an epoch.

        Raises:
            RecipeError: If `metrics` lacks the observed metric.
        """
        if self.metric not in metrics:
            raise RecipeError(f"scheduler (plateau): no metric '{self.metric}'; known: {', '.join(sorted(metrics))}")
        value = metrics[self.metric]
        if value < self._best - self.threshold * abs(self._best) or math.isinf(self._best):
            self._best, self._bad_epochs = value, 0
            return
        self._bad_epochs += 1
        if self._bad_epochs > self.patience:
            self._factor *= self.factor
            self._bad_epochs = 0

    def state_dict(self) -> dict[str, float]:
        return {"best": self._best, "waited": self._bad_epochs, "current": self._factor}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        self._best, self._bad_epochs, self._factor = state["best"], int(state["waited"]), state["current"]

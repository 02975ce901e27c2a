"""The learning rate over a run, as a factor on every optimizer's own rate; epochs are counted from 0."""

import math
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from gantoolkit.errors import RecipeError


class Constant:
    """The same rate throughout."""

    def multiplier(self, epoch: int, epochs: int) -> float:
        return 1.0


class ConstantThenLinear:
    """Constant at first, then falling linearly to zero (Zhu et al. 2017, §4).

    Args:
        decay_epochs: Epochs over which the rate falls; none is the second half of the run (the paper: 100 of 200).
        zero: Where the line meets zero. In the epoch `after` the last, as the official PyTorch implementation had it before
            July 2020; in the last epoch itself (`last`), as it has since; or, as in the authors' first code, in the epoch
            after the last, but with the first epoch of the decay still at the full rate (`lua`).
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
        # Without an epoch to fall in, the rate is whole to the end, and nothing after it.
        decayed = max(0, epoch + (shift if decay_epochs else 1) - (epochs - decay_epochs))
        return max(0.0, 1 - decayed / max(1, parts))


class Cosine:
    """Half a cosine from the full rate down to `final`.

    Args:
        final: Factor that the rate approaches at the end.
    """

    def __init__(self, *, final: Annotated[float, Field(ge=0, le=1)] = 0.0) -> None:
        self.final = final

    def multiplier(self, epoch: int, epochs: int) -> float:
        progress = min(1.0, epoch / epochs)
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * progress)) / 2


class Step:
    """Multiplied by `factor` every so many epochs.

    Args:
        every: Epochs between two cuts.
        factor: What the rate is multiplied by at each.
    """

    def __init__(
        self, *, every: Annotated[int, Field(ge=1)] = 50, factor: Annotated[float, Field(gt=0, le=1)] = 0.1
    ) -> None:
        self.every = every
        self.factor = factor

    def multiplier(self, epoch: int, epochs: int) -> float:
        return self.factor ** (epoch // self.every)


class Plateau:
    """Multiplied by `factor` whenever a metric has stopped falling.

    Args:
        metric: Logged name of what is followed, such as `G/cycle_A`: its mean over each epoch.
        factor: What the rate is multiplied by.
        patience: Epochs without an improvement that are borne before that.
        threshold: Relative improvement that counts as one.
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
        self._waited = 0
        self._current = 1.0

    def multiplier(self, epoch: int, epochs: int) -> float:
        return self._current

    def observe(self, metrics: Mapping[str, float]) -> None:
        """Take the means of one epoch.

        Raises:
            RecipeError: When the metric is not among them.
        """
        if self.metric not in metrics:
            raise RecipeError(f"scheduler (plateau): no metric '{self.metric}'; known: {', '.join(sorted(metrics))}")
        value = metrics[self.metric]
        if value < self._best - self.threshold * abs(self._best) or math.isinf(self._best):
            self._best, self._waited = value, 0
            return
        self._waited += 1
        if self._waited > self.patience:
            self._current *= self.factor
            self._waited = 0

    def state_dict(self) -> dict[str, float]:
        return {"best": self._best, "waited": self._waited, "current": self._current}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        self._best, self._waited, self._current = state["best"], int(state["waited"]), state["current"]

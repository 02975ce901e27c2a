"""Confidence intervals: how far figures would move with other test images, or a share with other answers."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

__all__ = ["Estimate", "bootstrap", "wilson"]

_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A number, with the 95 % confidence interval around it where there is one."""

    value: float
    low: float | None = None
    high: float | None = None


def bootstrap(
    rows: Tensor, figures: Callable[[Tensor], Mapping[str, float]], *, resamples: int = 1000, seed: int = 0
) -> dict[str, Estimate]:
    """Figures that follow from a sum over images, with percentile bootstrap intervals (Efron 1979).

    Args:
        rows: What each image adds to the sum, (N, K).
        figures: From a sum (K,) to figures by name.
        resamples: Sets of N images that are drawn, with replacement; with one image there is no interval.
        seed: Of the draws.
    """
    values = dict(figures(rows.sum(dim=0)))
    if len(rows) < 2 or not torch.isfinite(rows).all():  # an infinite figure stays infinite in whatever is drawn
        return {name: Estimate(value) for name, value in values.items()}
    draws = np.random.default_rng(seed).multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size=resamples)
    sums = torch.from_numpy(draws).to(rows) @ rows
    drawn = [figures(each) for each in sums]
    tail = (1 - _CONFIDENCE) / 2
    intervals = {name: np.quantile([each[name] for each in drawn], [tail, 1 - tail]) for name in values}
    return {name: Estimate(value, *(float(end) for end in intervals[name])) for name, value in values.items()}


def wilson(hits: int, trials: int) -> Estimate:
    """The share of hits with its score interval (Wilson 1927), which holds also near 0 and 1 and for few trials."""
    if trials == 0:
        return Estimate(math.nan, 0.0, 1.0)
    from scipy.stats import binomtest  # imported when used: metrics get by without it

    interval = binomtest(hits, trials).proportion_ci(_CONFIDENCE, method="wilson")
    return Estimate(hits / trials, float(interval.low), float(interval.high))

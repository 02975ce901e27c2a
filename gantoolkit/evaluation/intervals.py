"""Confidence intervals of scores over test images and of proportions over trials."""

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
    """A value with its 95 % confidence interval, if there is one, and its unit, which is empty for a pure number."""

    value: float
    low: float | None = None
    high: float | None = None
    unit: str = ""


def bootstrap(
    rows: Tensor, compute: Callable[[Tensor], Mapping[str, float]], *, resamples: int = 1000, seed: int = 0
) -> dict[str, Estimate]:
    """Estimate functions of a sum over images, with percentile bootstrap intervals (Efron 1979).

    Args:
        rows: The contribution of each image to the sum, (N, K).
        compute: Maps a sum (K,) to named values.
        resamples: Number of bootstrap samples of N images each. There is no interval for a single image.
        seed: Seed of the bootstrap samples.
    """
    values = dict(compute(rows.sum(dim=0)))
    if len(rows) < 2 or not torch.isfinite(rows).all():  # an infinite row makes the resampled values infinite too
        return {name: Estimate(value) for name, value in values.items()}
    counts = np.random.default_rng(seed).multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size=resamples)
    resampled = [compute(sums) for sums in torch.from_numpy(counts).to(rows) @ rows]
    tail = (1 - _CONFIDENCE) / 2
    intervals = {name: np.quantile([sample[name] for sample in resampled], [tail, 1 - tail]) for name in values}
    return {
        name: Estimate(value, float(intervals[name][0]), float(intervals[name][1])) for name, value in values.items()
    }


def wilson(hits: int, trials: int) -> Estimate:
    """The proportion of hits with its score interval (Wilson 1927), valid near 0 and 1 and for few trials."""
    if trials == 0:
        return Estimate(math.nan, 0.0, 1.0)
    from scipy.stats import binomtest  # imported here because metrics do not need it

    interval = binomtest(hits, trials).proportion_ci(_CONFIDENCE, method="wilson")
    return Estimate(hits / trials, float(interval.low), float(interval.high))

"""Rules of metrics."""

import math
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from gantoolkit.plugins import SummedMetric
from gantoolkit.testing.kit import Draw, NotApplicable, Rulebook, Subject, expect
from gantoolkit.testing.rules.common import add_schema_rule, check_inputs_kept, check_repeats
from gantoolkit.testing.strategies import image_pairs

__all__ = ["metrics"]

metrics = Rulebook("metrics", examples=8)
add_schema_rule(metrics)

_SIZES = (32, 40)


def draw_images(subject: Subject, draw: Draw) -> tuple[Tensor, Tensor]:
    strategy = image_pairs(sizes=subject.sizes or _SIZES, min_count=4, max_count=7)
    images, targets = draw(strategy, "(images, targets)")
    return images.to(subject.device), (0.5 * images + 0.5 * targets).to(subject.device)


def measure(metric: Any, *batches: tuple[Tensor, Tensor]) -> dict[str, float]:
    for images, targets in batches:
        metric.update(images, targets)
    return dict(metric.compute())


def close(some: dict[str, float], others: dict[str, float]) -> bool:
    return some.keys() == others.keys() and all(
        math.isclose(some[name], others[name], rel_tol=1e-5, abs_tol=1e-7) for name in some
    )


@metrics.rule
def returns_named_values(subject: Subject, draw: Draw) -> None:
    """It says what it measures `against` and whether `higher_is_better`, and computes a mapping from names to finite floats."""
    metric = subject.make()
    against = getattr(metric, "against", None)
    expect(
        against in ("ground_truth", "input", "domain"),
        f"its attribute 'against' is {against!r}; truth, input or domain is needed",
    )
    expect(isinstance(getattr(metric, "higher_is_better", None), bool), "its attribute higher_is_better is no bool")
    figures = measure(metric, draw_images(subject, draw))
    wrong = [name for name, value in figures.items() if not isinstance(value, float) or not math.isfinite(value)]
    expect(bool(figures) and not wrong, f"the figures are {figures}")


@metrics.rule
def is_batch_size_invariant(subject: Subject, draw: Draw) -> None:
    """The figures are those of all images together, in whatever batches, and in whatever order of batches, they came."""
    metric, (images, targets) = subject.make(), draw_images(subject, draw)
    cut = draw(st.integers(1, len(images) - 1), "images in the first batch")
    whole = measure(metric, (images, targets))
    metric.reset()
    parts = measure(metric, (images[cut:], targets[cut:]), (images[:cut], targets[:cut]))
    expect(close(whole, parts), f"{whole} for one batch, {parts} for two")


@metrics.rule
def reset_clears_state(subject: Subject, draw: Draw) -> None:
    """After `reset` it is as new."""
    metric, (images, targets) = subject.make(), draw_images(subject, draw)
    fresh = measure(metric, (images, targets))
    measure(metric, (images, images.flip(0)))
    metric.reset()
    again = measure(metric, (images, targets))
    expect(close(fresh, again), f"{fresh} at first, {again} after a reset")


@metrics.rule
def prefers_ground_truth(subject: Subject, draw: Draw) -> None:
    """The images that they are measured by get the best figure, better than others."""
    metric, (images, targets) = subject.make(), draw_images(subject, draw)
    if metric.against != "ground_truth":
        raise NotApplicable("what it measures by is not the right translation of each image")
    found = next(iter(measure(metric, (images, targets)).values()))
    metric.reset()
    truth = next(iter(measure(metric, (targets, targets.clone())).values()))
    better = truth > found if metric.higher_is_better else truth < found
    expect(better, f"{truth} for the truth itself, {found} for other images")


@metrics.rule
def statistics_are_additive(subject: Subject, draw: Draw) -> None:
    """If it has `statistics`, these are a row of float64 for each image, whose sum gives `figures` what `compute` returns."""
    metric, (images, targets) = subject.make(), draw_images(subject, draw)
    if not isinstance(metric, SummedMetric):
        raise NotApplicable("its figures do not follow from a sum over images")
    whole = measure(metric, (images, targets))
    rows = metric.statistics(images, targets)
    fits = rows.dtype == torch.float64 and rows.ndim == 2 and len(rows) == len(images)
    expect(fits, f"statistics of {len(images)} images are {rows.dtype} of shape {tuple(rows.shape)}")
    pairs = zip(images.split(1), targets.split(1), strict=True)
    rows = torch.cat([metric.statistics(image, target) for image, target in pairs])
    expect(close(whole, dict(metric.values(rows.sum(dim=0)))), f"{whole} computed, not from the sum of single images")


@metrics.rule
def does_not_modify_input(subject: Subject, draw: Draw) -> None:
    """Images are read and never changed in place; no gradient is kept."""
    metric, (images, targets) = subject.make(), draw_images(subject, draw)
    check_inputs_kept(metric.update, (images.requires_grad_(), targets))
    kept = [name for name, value in vars(metric).items() if isinstance(value, Tensor) and value.requires_grad]
    expect(not kept, f"{', '.join(kept)} keeps a gradient")


@metrics.rule
def is_deterministic(subject: Subject, draw: Draw) -> None:
    """Equal images give equal figures, and no global random generator is touched."""
    metric, pair = subject.make(), draw_images(subject, draw)
    measure(metric, pair)  # what is made once, at the first call, may draw

    def again() -> Tensor:
        metric.reset()
        return torch.tensor(list(measure(metric, pair).values()), dtype=torch.float64)

    check_repeats(again)

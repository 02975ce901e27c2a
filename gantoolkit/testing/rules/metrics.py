"""Rules of metrics."""

import math
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from gantoolkit.plugins import PIXEL_VALUES, MetricTraits, SummedMetric, read_traits
from gantoolkit.testing.kit import Draw, NotApplicable, Rulebook, Subject, expect
from gantoolkit.testing.rules.common import add_schema_rule, check_deterministic, check_device, check_inputs_unchanged
from gantoolkit.testing.strategies import image_pairs

__all__ = ["metrics"]

metrics = Rulebook("metrics", examples=8)
add_schema_rule(metrics)

_SIZES = (32, 40)


def draw_images(subject: Subject, draw: Draw) -> tuple[Tensor, Tensor]:
    strategy = image_pairs(sizes=subject.sizes or _SIZES, min_count=4, max_count=7)
    images, targets = draw(strategy, "(images, targets)")
    device = subject.device if read_traits(subject.make(), MetricTraits).any_device else torch.device("cpu")
    return images.to(device), (0.5 * images + 0.5 * targets).to(device)


def measure(metric: Any, *batches: tuple[Tensor, Tensor]) -> dict[str, float]:
    for images, targets in batches:
        metric.update(images, targets)
    return dict(metric.compute())


def all_close(values: dict[str, float], others: dict[str, float]) -> bool:
    return values.keys() == others.keys() and all(
        math.isclose(value, others[name], rel_tol=1e-5, abs_tol=1e-7) for name, value in values.items()
    )


@metrics.rule
def returns_named_values(subject: Subject, draw: Draw) -> None:
    """The attribute `against` names what images are compared with, and the bool `higher_is_better` is declared. `compute`
    returns a mapping from names to finite floats.
    """
    metric = subject.make()
    against = getattr(metric, "against", None)
    expect(
        against in ("ground_truth", "input", "domain"),
        f"against is {against!r}, expected 'ground_truth', 'input' or 'domain'",
    )
    expect(isinstance(getattr(metric, "higher_is_better", None), bool), "the attribute higher_is_better is not a bool")
    values = measure(metric, draw_images(subject, draw))
    wrong = [name for name, value in values.items() if not isinstance(value, float) or not math.isfinite(value)]
    expect(bool(values) and not wrong, f"compute returned {values}")


@metrics.rule
def is_batch_size_invariant(subject: Subject, draw: Draw) -> None:
    """The values do not depend on how the images are split into batches, nor on the order of the batches."""
    metric, (images, targets) = subject.make(), draw_images(subject, draw)
    count = draw(st.integers(1, len(images) - 1), "images in the first batch")
    whole = measure(metric, (images, targets))
    metric.reset()
    parts = measure(metric, (images[count:], targets[count:]), (images[:count], targets[:count]))
    expect(all_close(whole, parts), f"{whole} for one batch, {parts} for two")


@metrics.rule
def reset_clears_state(subject: Subject, draw: Draw) -> None:
    """After `reset` the metric behaves like a new one."""
    metric, (images, targets) = subject.make(), draw_images(subject, draw)
    fresh = measure(metric, (images, targets))
    measure(metric, (images, images.flip(0)))
    metric.reset()
    after_reset = measure(metric, (images, targets))
    expect(all_close(fresh, after_reset), f"{fresh} at first, {after_reset} after a reset")


@metrics.rule
def prefers_ground_truth(subject: Subject, draw: Draw) -> None:
    """If images are compared with the ground truth, the ground truth itself gets a better value than other images."""
    metric, (images, targets) = subject.make(), draw_images(subject, draw)
    if metric.against != "ground_truth":
        raise NotApplicable("it does not compare images with the ground truth")
    other = next(iter(measure(metric, (images, targets)).values()))
    metric.reset()
    best = next(iter(measure(metric, (targets, targets.clone())).values()))
    better = best > other if metric.higher_is_better else best < other
    expect(better, f"{best} for the ground truth, {other} for other images")


@metrics.rule
def statistics_are_additive(subject: Subject, draw: Draw) -> None:
    """If the metric is a `SummedMetric`, `statistics` returns one float64 row per image, and the sum of the rows gives the same
    values as `compute`.
    """
    metric, (images, targets) = subject.make(), draw_images(subject, draw)
    if not isinstance(metric, SummedMetric):
        raise NotApplicable("its values do not follow from a sum over images")
    whole = measure(metric, (images, targets))
    rows = metric.statistics(images, targets)
    fits = rows.dtype == torch.float64 and rows.ndim == 2 and len(rows) == len(images)
    expect(fits, f"statistics of {len(images)} images are {rows.dtype} of shape {tuple(rows.shape)}")
    pairs = zip(images.split(1), targets.split(1), strict=True)
    rows = torch.cat([metric.statistics(image, target) for image, target in pairs])
    summed = dict(metric.values(rows.sum(dim=0)))
    expect(all_close(whole, summed), f"compute returned {whole}, but the sum over single images gives {summed}")


@metrics.rule
def states_units(subject: Subject, draw: Draw) -> None:
    """The attribute `units` is about values that it returns. A value with the unit `PIXEL_VALUES` halves with the contrast of
    images and targets, and is at most 2, the width of [−1, 1]; any other value that halves states its unit, which may be empty.
    """
    images, targets = draw_images(subject, draw)
    units = read_traits(subject.make(), MetricTraits).units
    whole, half, quarter = (measure(subject.make(), (share * images, share * targets)) for share in (1.0, 0.5, 0.25))
    unknown = sorted(units.keys() - whole.keys())
    expect(not unknown, f"units names {', '.join(unknown)}, but compute returned {', '.join(whole)}")
    for name, value in whole.items():
        halves = all(
            math.isclose(others[name], share * value, rel_tol=1e-5, abs_tol=1e-7)
            for others, share in ((half, 0.5), (quarter, 0.25))
        )
        if units.get(name) == PIXEL_VALUES:
            expect(
                halves and abs(value) <= 2,
                f"{name} is {value}, {half[name]} at half the contrast, and {quarter[name]} at a quarter: not PIXEL_VALUES",
            )
        elif halves and abs(value) > 1e-6:
            expect(
                name in units, f"{name} halves with the contrast of the images; state its unit, such as PIXEL_VALUES"
            )


@metrics.rule
def excludes_pixels_without_data(subject: Subject, draw: Draw) -> None:
    """If it declares `excludes_nodata`, pixels without data change no value, an image of such pixels alone does not count, and
    nothing is left out where all pixels have data.
    """
    metric, (images, targets) = subject.make(), draw_images(subject, draw)
    if not read_traits(metric, MetricTraits).excludes_nodata:
        raise NotApplicable("it does not declare excludes_nodata, so it measures all pixels")
    expect(isinstance(metric, SummedMetric), "it declares excludes_nodata but has no statistics")
    valid = torch.ones_like(images[:, :1], dtype=torch.bool)
    same = torch.equal(metric.statistics(images, targets, valid), metric.statistics(images, targets))
    expect(same, "if all pixels have data, the statistics differ from those without `valid`")
    valid[:, :, :, : images.shape[-1] // 2] = False
    valid[0] = False
    whole = metric.statistics(images, targets, valid)
    changed = metric.statistics(torch.where(valid, images, -images), torch.where(valid, targets, 1.0), valid)
    expect(torch.equal(whole, changed), f"the statistics are {whole}, and {changed} with other pixels without data")
    expect(not whole[0].any(), f"the statistics of an image without data are {whole[0]}, not zeros")


@metrics.rule
def does_not_modify_input(subject: Subject, draw: Draw) -> None:
    """The images are not changed in place, and no tensor that requires a gradient is stored."""
    metric, (images, targets) = subject.make(), draw_images(subject, draw)
    check_inputs_unchanged(metric.update, (images.requires_grad_(), targets))
    names = [name for name, value in vars(metric).items() if isinstance(value, Tensor) and value.requires_grad]
    expect(not names, f"{', '.join(names)} requires a gradient")


@metrics.rule
def is_device_agnostic(subject: Subject, draw: Draw) -> None:
    """If it declares `any_device`, it computes on the device of the images."""
    metric, pair = subject.make(), draw_images(subject, draw)
    if not read_traits(metric, MetricTraits).any_device:
        raise NotApplicable("it does not declare any_device, so it gets images on the CPU")

    def use(images: Tensor, targets: Tensor) -> list[Tensor]:
        metric = subject.make()
        if isinstance(metric, SummedMetric):
            return [metric.statistics(images, targets)]
        metric.update(images, targets)
        return []

    with torch.no_grad():
        check_device(use, pair)


@metrics.rule
def is_deterministic(subject: Subject, draw: Draw) -> None:
    """Equal images give equal values. Global random generators are neither used nor advanced."""
    metric, pair = subject.make(), draw_images(subject, draw)
    measure(metric, pair)  # the first call may create something at random

    def measure_again() -> Tensor:
        metric.reset()
        return torch.tensor(list(measure(metric, pair).values()), dtype=torch.float64)

    check_deterministic(measure_again)

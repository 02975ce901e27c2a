"""The loop that measures translations: for validation while a run trains, and for `gantoolkit evaluate`."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gantoolkit.data.evaluation_images import EvaluationImages
from gantoolkit.plugins import Direction, Metric, MetricTraits, SummedMetric, read_traits

__all__ = ["Gauge", "make_gauges", "measure"]

_BATCH = 8

Translate = Callable[[Tensor], Tensor]


@dataclass
class Gauge:
    """A metric, and what it has accumulated.

    Args:
        name: The name of the metric.
        metric: Measures images.
        reconstruction: Whether it measures reconstructions instead of translations.
        statistics: The rows of single images, for a metric that has them.
    """

    name: str
    metric: Metric
    reconstruction: bool = False
    statistics: list[Tensor] = field(default_factory=list)

    @property
    def traits(self) -> MetricTraits:
        """The optional attributes of the metric."""
        return read_traits(self.metric, MetricTraits)

    def add(self, images: Tensor, targets: Tensor) -> None:
        """Accumulate a batch."""
        if isinstance(self.metric, SummedMetric):
            with torch.no_grad():
                self.statistics.append(self.metric.statistics(images, targets))
        else:
            self.metric.update(images, targets)

    def values(self) -> Mapping[str, float]:
        """The values over all images, by name."""
        if isinstance(self.metric, SummedMetric):
            return self.metric.values(torch.cat(self.statistics).sum(dim=0))
        return self.metric.compute()


def make_gauges(
    metrics: Sequence[tuple[str, Callable[[], Metric]]], direction: str, *, paired: bool, reconstructs: bool
) -> list[Gauge]:
    """The gauges of the metrics that apply to a direction.

    Args:
        metrics: Names and factories.
        direction: The direction of the translations.
        paired: Whether each input has a ground truth.
        reconstructs: Whether there is a way back. Metrics against the ground truth then also measure reconstructions against
            the inputs.
    """
    gauges: list[Gauge] = []
    for name, make in metrics:
        gauge = Gauge(name, make())
        needs_pairs = gauge.metric.against == "ground_truth"
        if gauge.traits.direction not in (None, direction):
            continue
        if paired or not needs_pairs:
            gauges.append(gauge)
        if needs_pairs and reconstructs and not gauge.traits.label_maps:
            gauges.append(Gauge(name, make(), reconstruction=True))
    return gauges


def measure(
    images: EvaluationImages,
    direction: str,
    gauges: Sequence[Gauge],
    translate: Callable[[Tensor, Sequence[int]], Tensor],
    back: Translate | None = None,
) -> None:
    """Translate every image of a direction's source domain and pass the results to the gauges.

    Args:
        images: Inputs and targets.
        direction: The direction of the translations.
        gauges: Accumulate the results.
        translate: Translates inputs (N, C, H, W); it also receives their indices.
        back: Translates results back, for gauges of reconstructions.
    """
    source, target = Direction(direction).source, Direction(direction).target
    inputs_count, targets_count = len(images.files(source)), len(images.files(target))
    # An unpaired domain has a number of images of its own: both are read in the same number of batches.
    chunks = zip(_chunks(inputs_count, targets_count), _chunks(targets_count, inputs_count), strict=True)
    for indices, target_indices in chunks:
        inputs = images.read(source, indices)
        # If one domain has far fewer images, a chunk is larger than a batch.
        batches = [slice(first, first + _BATCH) for first in range(0, len(indices), _BATCH)]
        results = torch.cat([translate(inputs[batch], indices[batch]).cpu() for batch in batches])
        for gauge in gauges:
            label_maps = gauge.traits.label_maps
            if gauge.reconstruction:
                returned = torch.cat([back(results[batch]).cpu() for batch in batches]) if back else results
                gauge.add(returned, inputs)
            elif gauge.metric.against == "domain":
                gauge.add(results, images.read(target, target_indices, label_maps=label_maps))
            elif gauge.metric.against == "ground_truth":
                gauge.add(results, images.read(target, indices, label_maps=label_maps))
            else:
                gauge.add(results, images.read(source, indices, label_maps=True) if label_maps else inputs)


def _chunks(count: int, other: int) -> Iterator[range]:
    """`count` indices in as many non-empty parts as `other` indices are cut into."""
    parts = min(math.ceil(max(count, other) / _BATCH), count, other)
    for part in range(parts):
        yield range(part * count // parts, (part + 1) * count // parts)

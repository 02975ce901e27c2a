"""The loop that measures translations: for validation while a run trains, and for `gantoolkit evaluate`."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from gantoolkit.data.encoding import PICTURE, Encoding, encoding_of
from gantoolkit.data.evaluation_images import EvaluationImages
from gantoolkit.plugins import PIXEL_VALUES, Direction, Metric, MetricTraits, SummedMetric, read_traits
from gantoolkit.recipes.settings import DataSettings

__all__ = ["Gauge", "ImageBatch", "make_gauges", "measure"]

_BATCH = 8
_CPU = torch.device("cpu")

Translate = Callable[[Tensor], Tensor]


@dataclass
class Gauge:
    """A metric, and what it has accumulated.

    Args:
        name: The name of the metric.
        metric: Measures images.
        reconstruction: Whether it measures reconstructions instead of translations.
        encoding: How the files of the measured images' domain encode them, which determines the unit of differences of pixels.
        statistics: The rows of single images, for a metric that has them.
    """

    name: str
    metric: Metric
    reconstruction: bool = False
    encoding: Encoding = PICTURE
    statistics: list[Tensor] = field(default_factory=list)

    @property
    def traits(self) -> MetricTraits:
        """The optional attributes of the metric."""
        return read_traits(self.metric, MetricTraits)

    def add(self, images: "ImageBatch", targets: "ImageBatch", valid: "ImageBatch | None" = None) -> None:
        """Accumulate a batch, on the device if the metric computes there, else on the CPU.

        Args:
            images: The measured images.
            targets: What they are compared with.
            valid: False at pixels without data, (N, 1, H, W); None if all have data.
        """
        batches = [images, targets] if valid is None or not self.traits.excludes_nodata else [images, targets, valid]
        tensors = [batch.on_device if self.traits.any_device else batch.on_cpu for batch in batches]
        if isinstance(self.metric, SummedMetric):
            with torch.no_grad():
                self.statistics.append(self.metric.statistics(*tensors))
        else:
            self.metric.update(*tensors)

    def values(self) -> dict[str, float]:
        """The values over all images by name, in their units."""
        return self._convert(self.raw_values())

    def raw_values(self) -> Mapping[str, float]:
        """The values over all images by name; differences of pixels are those of images in [−1, 1]."""
        if isinstance(self.metric, SummedMetric):
            return self.metric.values(self.rows().sum(dim=0))
        return self.metric.compute()

    def values_of(self, sums: Tensor) -> dict[str, float]:
        """The values for a sum (K,) of `rows`, in their units; only for a `SummedMetric`."""
        assert isinstance(self.metric, SummedMetric)
        return self._convert(self.metric.values(sums))

    def unit(self, name: str) -> str:
        """The unit of a value; empty for a pure number."""
        unit = self.traits.units.get(name, "")
        return self.encoding.value_unit if unit == PIXEL_VALUES else unit

    def rows(self) -> Tensor:
        """The statistics of all images, (images, K), on the CPU; only for a `SummedMetric`."""
        return torch.cat(self.statistics).cpu()

    def _convert(self, values: Mapping[str, float]) -> dict[str, float]:
        units, scale = self.traits.units, self.encoding.scale_difference
        return {name: scale(value) if units.get(name) == PIXEL_VALUES else value for name, value in values.items()}


class ImageBatch:
    """Images on the CPU and on a device; they are copied from one to the other at most once.

    Args:
        images: On either of them, (N, C, H, W).
        device: The device.
    """

    def __init__(self, images: Tensor, device: torch.device) -> None:
        self._images, self._device = images, device

    @cached_property
    def on_cpu(self) -> Tensor:
        return self._images.cpu()

    @cached_property
    def on_device(self) -> Tensor:
        return self._images.to(self._device)


def make_gauges(
    metrics: Sequence[tuple[str, Callable[[], Metric]]],
    direction: str,
    settings: DataSettings,
    *,
    paired: bool,
    reconstructs: bool,
) -> list[Gauge]:
    """The gauges of the metrics that apply to a direction.

    Args:
        metrics: Names and factories.
        direction: The direction of the translations.
        settings: How the files of both domains encode images.
        paired: Whether each input has a ground truth.
        reconstructs: Whether there is a way back. Metrics against the ground truth then also measure reconstructions against
            the inputs.
    """
    source, target = (encoding_of(settings, domain) for domain in Direction(direction).domains)
    gauges: list[Gauge] = []
    for name, make in metrics:
        gauge = Gauge(name, make(), encoding=target)
        needs_pairs = gauge.metric.against == "ground_truth"
        if gauge.traits.direction not in (None, direction):
            continue
        if paired or not needs_pairs:
            gauges.append(gauge)
        if needs_pairs and reconstructs and not gauge.traits.label_maps:
            gauges.append(Gauge(name, make(), reconstruction=True, encoding=source))
    return gauges


def measure(
    images: EvaluationImages,
    direction: str,
    gauges: Sequence[Gauge],
    translate: Callable[[Tensor, Sequence[int]], Tensor],
    back: Translate | None = None,
    *,
    device: torch.device = _CPU,
) -> None:
    """Translate every image of a direction's source domain and pass the results to the gauges, rounded as in files.

    Args:
        images: Inputs and targets.
        direction: The direction of the translations.
        gauges: Accumulate the results.
        translate: Translates inputs (N, C, H, W) on the device; it also receives their indices.
        back: Translates results back, for gauges of reconstructions.
        device: The device of the translations, and of the metrics that compute on any device.
    """
    source, target = Direction(direction).domains
    encodings = {domain: encoding_of(images.settings, domain) for domain in (source, target)}
    inputs_count, targets_count = len(images.files(source)), len(images.files(target))
    # An unpaired domain has a number of images of its own: both are read in the same number of batches.
    chunks = zip(_chunks(inputs_count, targets_count), _chunks(targets_count, inputs_count), strict=True)
    for indices, target_indices in chunks:
        read = _Reader(images, device)
        inputs = read(source, indices)
        # If one domain has far fewer images, a chunk is larger than a batch.
        batches = [slice(first, first + _BATCH) for first in range(0, len(indices), _BATCH)]
        translations = [translate(inputs.on_device[batch], indices[batch]) for batch in batches]
        results = ImageBatch(encodings[target].quantize(torch.cat(translations)), device)
        for gauge in gauges:
            label_maps = gauge.traits.label_maps
            if gauge.reconstruction:
                returned = torch.cat([back(batch.to(device)) for batch in translations] if back else translations)
                gauge.add(ImageBatch(encodings[source].quantize(returned), device), inputs, read.valid(source, indices))
            elif gauge.metric.against == "domain":
                gauge.add(results, read(target, target_indices, label_maps))
            elif gauge.metric.against == "ground_truth":
                valid = read.valid(source + target, indices)
                gauge.add(results, read(target, indices, label_maps), valid)
            else:
                gauge.add(results, read(source, indices, label_maps))


class _Reader:
    """Reads the images of a chunk, each of them once."""

    def __init__(self, images: EvaluationImages, device: torch.device) -> None:
        self._images, self._device = images, device
        self._batches: dict[tuple[str, range, bool], ImageBatch] = {}
        self._masks: dict[tuple[str, range], ImageBatch | None] = {}

    def __call__(self, domain: str, indices: range, label_maps: bool = False) -> ImageBatch:
        key = (domain, indices, label_maps)
        if key not in self._batches:
            self._batches[key] = ImageBatch(self._images.read(domain, indices, label_maps=label_maps), self._device)
        return self._batches[key]

    def valid(self, domains: str, indices: range) -> ImageBatch | None:
        """Where the images of all these domains have data, (N, 1, H, W); None if they have data everywhere."""
        key = (domains, indices)
        if key not in self._masks:
            masks = [mask for domain in domains if (mask := self._images.read_valid(domain, indices)) is not None]
            self._masks[key] = ImageBatch(torch.stack(masks).all(dim=0), self._device) if masks else None
        return self._masks[key]


def _chunks(count: int, other: int) -> Iterator[range]:
    """`count` indices in as many non-empty parts as `other` indices are cut into."""
    parts = min(math.ceil(max(count, other) / _BATCH), count, other)
    for part in range(parts):
        yield range(part * count // parts, (part + 1) * count // parts)

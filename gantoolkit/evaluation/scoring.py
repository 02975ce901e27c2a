"""Scores of runs on test images: values with intervals, and the values of every single image."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gantoolkit.data.encoding import encoding_of
from gantoolkit.data.evaluation_images import EvaluationImages
from gantoolkit.evaluation.intervals import Estimate, bootstrap
from gantoolkit.plugins import Direction, Metric, SummedMetric
from gantoolkit.recipes.block_spec import BlockSpec, bind, merge_field, resolve
from gantoolkit.run import Run
from gantoolkit.training.measuring import Gauge, make_gauges, measure

__all__ = [
    "DEFAULT_METRICS",
    "DirectionScores",
    "RunScores",
    "choose_metrics",
    "score_direction",
    "score_run",
]

DEFAULT_METRICS = ("l1", "psnr", "ssim")
_RECONSTRUCTION = "rec_"


@dataclass(frozen=True)
class DirectionScores:
    """The scores of one direction of a run.

    Args:
        direction: `A2B` or `B2A`.
        scores: By name; those of reconstructions, F(G(x)) against x, have the prefix `rec_`.
        per_image: The values of every image by the same names and in the same units, for metrics that have them; (images,).
        names: The names of the translated files, in the same order.
        signs: 1 if more is better, −1 if less is; only for the first score of each metric.
        notes: What must be reported beside the scores.
        values: What the values of input and output images are, in words.
    """

    direction: str
    scores: dict[str, Estimate]
    per_image: dict[str, list[float]]
    names: list[str]
    signs: dict[str, int]
    notes: list[str] = field(default_factory=list)
    values: str = ""

    @property
    def images(self) -> int:
        """The number of translated images."""
        return len(self.names)

    def ranked(self) -> tuple[str, list[int]] | None:
        """The first score that single images have, and the indices of the images by it, the best first."""
        name = next((name for name in self.signs if name in self.per_image), None)
        if name is None:
            return None
        values, sign = self.per_image[name], self.signs[name]
        # NaN comes last, with the worst: the network returned NaN, or no pixel has data.
        order = sorted(range(len(values)), key=lambda index: (math.isnan(values[index]), -sign * values[index]))
        return name, order


@dataclass(frozen=True)
class RunScores:
    """The scores of a run, or of a reference.

    Args:
        name: The name in tables.
        path: The run's folder; None for a reference.
        step: Training steps.
        directions: Scores by direction.
        skipped: Files that could not be read, with the reason.
        notes: Sentences about how files were read and paired, and about what is not used.
        passed_over: The notes among them about what is not used.
    """

    name: str
    path: Path | None
    step: int
    directions: dict[str, DirectionScores]
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    passed_over: tuple[str, ...] = ()


def choose_metrics(names: Sequence[str], settings: Mapping[str, Any]) -> list[tuple[str, Callable[[], Metric]]]:
    """The names and factories of metrics.

    Args:
        names: Names of metrics. Metrics that only `settings` names are appended.
        settings: Parameters by dotted path, which begins with the metric's name: `{"fid.backbone": "resnet18"}`.

    Raises:
        PluginError: When there is no such metric.
        RecipeError: When a parameter does not fit.
    """
    tables: dict[str, Any] = {name: {"name": name} for name in names}
    for path, value in settings.items():
        name = path.partition(".")[0]
        tables.setdefault(name, {"name": name})
        merge_field(tables, path.split("."), value, "evaluate")
    blocks = {name: resolve("metrics", BlockSpec.of(table), name) for name, table in tables.items()}
    return [(name, bind("metrics", block)) for name, block in blocks.items()]


def score_run(
    run: Run,
    images: EvaluationImages,
    metrics: Sequence[tuple[str, Callable[[], Metric]]],
    *,
    name: str | None = None,
    best: bool = False,
    device: str | None = None,
) -> RunScores:
    """Translate test images with a run's generators and measure the results.

    Args:
        run: A run that has saved generators.
        images: The images to translate, prepared with the run's own settings; all must be `readable`.
        metrics: As returned by `choose_metrics`. A metric that needs pairs is skipped if there are none, and so is one that
            applies to the other direction only.
        name: The name in tables; by default, the name of the run's folder.
        best: Use the best generators of the run instead of the last ones.
        device: The device of the generators, and of the metrics that compute on any device, as for
            `gantoolkit.runtime.device.select_device`.

    Raises:
        GantoolkitError: When nothing can be translated, or a metric is not available.
    """
    translators = {direction: run.translator(direction, best=best, device=device) for direction in run.directions()}
    scores: dict[str, DirectionScores] = {}
    for direction, translator in translators.items():
        back = translators.get(Direction(direction).reverse)
        scores[direction] = score_direction(
            images,
            direction,
            metrics,
            lambda inputs, _, translator=translator: translator.translate_tensor(inputs),
            back.translate_tensor if back else None,
            device=translator.device,
        )
    step = max(translator.generator.step for translator in translators.values())
    name = name or run.path.name
    return RunScores(name, run.path, step, scores, images.skipped, images.notes, images.passed_over)


def score_direction(
    images: EvaluationImages,
    direction: str,
    metrics: Sequence[tuple[str, Callable[[], Metric]]],
    translate: Callable[[Tensor, Sequence[int]], Tensor],
    back: Callable[[Tensor], Tensor] | None = None,
    *,
    device: torch.device,
) -> DirectionScores:
    """Measure translations of one direction.

    Args:
        images, metrics: As in `score_run`.
        direction: The direction.
        translate: Translates inputs (N, C, H, W); it also receives their indices.
        back: Translates results back, so that reconstructions are measured too.
        device: The device of the translations.
    """
    gauges = make_gauges(metrics, direction, images.settings, paired=images.paired, reconstructs=back is not None)
    measure(images, direction, gauges, translate, back, device=device)
    scores: dict[str, Estimate] = {}
    per_image: dict[str, list[float]] = {}
    signs: dict[str, int] = {}
    for gauge in gauges:
        estimates, singles = _estimate(gauge)
        prefix = _RECONSTRUCTION if gauge.reconstruction else ""
        names = {name: _unique_name(f"{prefix}{name}", gauge.name, scores) for name in estimates}
        scores |= {names[name]: estimate for name, estimate in estimates.items()}
        per_image |= {names[name]: values for name, values in singles.items()}
        signs[next(iter(names.values()))] = 1 if gauge.metric.higher_is_better else -1
    notes = dict.fromkeys(note for gauge in gauges for note in _notes(gauge))
    names = [file.name for file in images.files(Direction(direction).source)]
    values = " → ".join(str(encoding_of(images.settings, domain)) for domain in Direction(direction).domains)
    return DirectionScores(direction, scores, per_image, names, signs, list(notes), values)


def _notes(gauge: Gauge) -> Iterator[str]:
    if gauge.traits.notes:
        yield f"{gauge.name}: {gauge.traits.notes}"
    if gauge.traits.excludes_nodata:
        has_data = gauge.rows().any(dim=1)
        if not has_data.all():
            prefix = _RECONSTRUCTION if gauge.reconstruction else ""
            yield f"{prefix}{gauge.name}: {int((~has_data).sum())} of {len(has_data)} images have no pixel with data"


def _estimate(gauge: Gauge) -> tuple[dict[str, Estimate], dict[str, list[float]]]:
    """The values of a gauge with their intervals, and the values of each image, if single images have any."""
    if not isinstance(gauge.metric, SummedMetric):
        return {name: Estimate(value, unit=gauge.unit(name)) for name, value in gauge.values().items()}, {}
    rows = gauge.rows()
    singles = [gauge.values_of(row) for row in rows]
    if gauge.traits.excludes_nodata:
        rows = rows[rows.any(dim=1)]  # an image without any pixel that has data counts in no sample of the bootstrap
    estimates = {
        name: replace(estimate, unit=gauge.unit(name)) for name, estimate in bootstrap(rows, gauge.values_of).items()
    }
    return estimates, {name: [values[name] for values in singles] for name in estimates}


def _unique_name(name: str, metric: str, scores: Mapping[str, Estimate]) -> str:
    return name if name not in scores else f"{metric}/{name}"

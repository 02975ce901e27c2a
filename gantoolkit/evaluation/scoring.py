"""Scores of runs on test images: values with intervals, and the values of every single image."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gantoolkit.data.evaluation_images import EvaluationImages
from gantoolkit.evaluation.intervals import Estimate, bootstrap
from gantoolkit.plugins import Direction, Metric, SummedMetric
from gantoolkit.recipes.block_spec import BlockSpec, bind, merge_field, resolve
from gantoolkit.run import Run
from gantoolkit.runtime.device import select_device
from gantoolkit.training.measuring import Gauge, make_gauges, measure

__all__ = [
    "DEFAULT_METRICS",
    "DirectionScores",
    "RunScores",
    "choose_metrics",
    "score_references",
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
        per_image: The values of every image by the same names, for metrics that have them; (images,).
        names: The names of the translated files, in the same order.
        signs: 1 if more is better, −1 if less is; only for the first score of each metric.
        notes: What must be reported beside the scores.
    """

    direction: str
    scores: dict[str, Estimate]
    per_image: dict[str, list[float]]
    names: list[str]
    signs: dict[str, int]
    notes: list[str] = field(default_factory=list)

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
        return name, sorted(range(len(values)), key=lambda index: -sign * values[index])


@dataclass(frozen=True)
class RunScores:
    """The scores of a run, or of a reference.

    Args:
        name: The name in tables.
        path: The run's folder; None for a reference.
        step: Training steps.
        directions: Scores by direction.
        skipped: Files that could not be read, with the reason.
    """

    name: str
    path: Path | None
    step: int
    directions: dict[str, DirectionScores]
    skipped: tuple[str, ...] = ()


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
        scores[direction] = _score(
            images,
            direction,
            metrics,
            lambda inputs, _, translator=translator: translator.translate_tensor(inputs),
            back.translate_tensor if back else None,
            device=translator.device,
        )
    step = max(translator.generator.step for translator in translators.values())
    return RunScores(name or run.path.name, run.path, step, scores, (*images.skipped, *images.dataset.passed_over))


def score_references(
    images: EvaluationImages,
    directions: Sequence[str],
    metrics: Sequence[tuple[str, Callable[[], Metric]]],
    *,
    device: str | None = None,
) -> list[RunScores]:
    """The scores of references that need no network, as a scale for those of runs.

    The references are the input itself and, for pairs, the ground truth and the ground truth of another image.

    Args:
        images, metrics, device: As in `score_run`.
        directions: The directions of the runs.
    """
    torch_device = select_device(device)
    scores: dict[str, dict[str, DirectionScores]] = {}
    # The distance of a set of real images from itself says nothing.
    singles = [(name, make) for name, make in metrics if make().against != "domain"]
    for direction in directions:
        target = Direction(direction).target
        count = len(images.files(target))
        answers: dict[str, Callable[[Tensor, Sequence[int]], Tensor]] = {}
        if images.paired:
            answers["ground truth"] = lambda _, indices, target=target: images.read(target, indices)
        if images.paired and count > 1:
            answers["ground truth of another image"] = lambda _, indices, target=target, count=count: images.read(
                target, [(index + max(1, count // 2)) % count for index in indices]
            )
        for name, answer in answers.items():
            scores.setdefault(name, {})[direction] = _score(images, direction, singles, answer, device=torch_device)
        if images.settings.channels_A == images.settings.channels_B:
            scores.setdefault("input", {})[direction] = _score(
                images, direction, metrics, lambda inputs, _: inputs, device=torch_device
            )
    return [RunScores(name, None, 0, by_direction) for name, by_direction in scores.items()]


def _score(
    images: EvaluationImages,
    direction: str,
    metrics: Sequence[tuple[str, Callable[[], Metric]]],
    translate: Callable[[Tensor, Sequence[int]], Tensor],
    back: Callable[[Tensor], Tensor] | None = None,
    *,
    device: torch.device,
) -> DirectionScores:
    gauges = make_gauges(metrics, direction, paired=images.paired, reconstructs=back is not None)
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
    notes = dict.fromkeys(f"{gauge.name}: {gauge.traits.notes}" for gauge in gauges if gauge.traits.notes)
    names = [file.name for file in images.files(Direction(direction).source)]
    return DirectionScores(direction, scores, per_image, names, signs, [*images.notes, *notes])


def _estimate(gauge: Gauge) -> tuple[dict[str, Estimate], dict[str, list[float]]]:
    """The values of a gauge with their intervals, and the values of each image, if single images have any."""
    if not isinstance(gauge.metric, SummedMetric):
        return {name: Estimate(value) for name, value in gauge.values().items()}, {}
    rows = gauge.rows()
    singles = [gauge.metric.values(row) for row in rows]
    estimates = bootstrap(rows, gauge.metric.values)
    return estimates, {name: [values[name] for values in singles] for name in estimates}


def _unique_name(name: str, metric: str, scores: Mapping[str, Estimate]) -> str:
    return name if name not in scores else f"{metric}/{name}"

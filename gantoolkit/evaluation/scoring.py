"""Measuring runs on test images: figures with intervals, and the figures of every single image."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gantoolkit.data.evaluation_images import EvaluationImages
from gantoolkit.evaluation.intervals import Estimate, bootstrap
from gantoolkit.inference import Translator
from gantoolkit.plugins import Direction, Metric, MetricTraits, SummedMetric, read_traits
from gantoolkit.recipes.block_spec import BlockSpec, bind, merge_field, resolve
from gantoolkit.run import Run

__all__ = [
    "DEFAULT_METRICS",
    "DirectionScores",
    "RunScores",
    "Translations",
    "choose_metrics",
    "score_references",
    "score_run",
]

DEFAULT_METRICS = ("l1", "psnr", "ssim")
_RECONSTRUCTION = "rec_"
_BATCH = 8

Translations = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class DirectionScores:
    """What one direction of a run came to.

    Args:
        direction: `A2B` or `B2A`.
        figures: By name; those of F(G(x)) against x have `rec_` in front.
        each: For every image, by the same names, where figures of single images make sense; (images,).
        names: Of the files that were translated, in the same order.
        better: By name, 1 where more is better and −1 where less is; nothing of what only goes with another figure.
        notes: What has to be said beside the figures.
    """

    direction: str
    figures: dict[str, Estimate]
    each: dict[str, list[float]]
    names: list[str]
    better: dict[str, int]
    notes: list[str] = field(default_factory=list)

    @property
    def images(self) -> int:
        """How many images were translated."""
        return len(self.names)

    def ranked(self) -> tuple[str, list[int]] | None:
        """The first figure of which single images have one, and the images by it, the best first."""
        name = next((name for name in self.better if name in self.each), None)
        if name is None:
            return None
        values, sign = self.each[name], self.better[name]
        return name, sorted(range(len(values)), key=lambda place: -sign * values[place])


@dataclass(frozen=True)
class RunScores:
    """What a run came to, or a reference in its place.

    Args:
        name: What tables call it.
        path: Its folder; none for a reference.
        step: Steps that it had been trained.
        directions: By name.
        skipped: Files that could not be read, with the reason.
    """

    name: str
    path: Path | None
    step: int
    directions: dict[str, DirectionScores]
    skipped: tuple[str, ...] = ()


def choose_metrics(names: Sequence[str], settings: Mapping[str, Any]) -> list[tuple[str, Callable[[], Metric]]]:
    """Factories of metrics.

    Args:
        names: Of the metrics; those that only `settings` names come after them.
        settings: Parameters, by a dotted path that begins with the metric's name: `{"fid.backbone": "resnet18"}`.

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
    """Translate test images with a run's generators, and measure.

    Args:
        run: A run that has saved generators.
        images: What to translate, as the run's own settings prepare it; all of it has to be `readable`.
        metrics: As `choose_metrics` returns them. One that needs pairs is passed over where there are none, one for the
            other direction likewise.
        name: What tables call it; its folder's name by default.
        best: Take the generators that were best while it trained, in place of the last.
        device: As `gantoolkit.runtime.device.select_device`.

    Raises:
        GantoolkitError: When nothing can be translated, or a metric cannot be had.
    """
    translators = {direction: run.translator(direction, best=best, device=device) for direction in run.directions()}
    scores: dict[str, DirectionScores] = {}
    for direction, translator in translators.items():
        back = translators.get(Direction(direction).reverse)
        scores[direction] = _score(images, direction, metrics, translator.translate_tensor, _way_back(back))
    step = max(translator.generator.step for translator in translators.values())
    return RunScores(name or run.path.name, run.path, step, scores, images.skipped)


def score_references(
    images: EvaluationImages, directions: Sequence[str], metrics: Sequence[tuple[str, Callable[[], Metric]]]
) -> list[RunScores]:
    """The same figures for what needs no network: the scale that those of runs stand on.

    The input itself, handed back; where the data are pairs, also the truth itself, and the truth of another image.
    """
    found: dict[str, dict[str, DirectionScores]] = {}
    for direction in directions:
        same_channels = images.settings.channels_A == images.settings.channels_B
        answers: dict[str, Callable[[Sequence[int], Tensor], Tensor]] = {}
        if images.paired:
            target = Direction(direction).target
            count = len(images.files(target))
            half = max(1, count // 2)
            answers["the truth itself"] = lambda places, _, target=target: images.read(target, places)
            if count > 1:
                answers["the truth of another image"] = lambda places, _, target=target, count=count, half=half: (
                    images.read(target, [(place + half) % count for place in places])
                )
        if same_channels:
            answers["the input itself"] = lambda _, inputs: inputs
        # How sets of real images differ from themselves says nothing.
        single = [(name, make) for name, make in metrics if make().against != "domain"]
        for name, answer in answers.items():
            measured = single if name != "the input itself" else metrics
            found.setdefault(name, {})[direction] = _score(images, direction, measured, None, None, answer)
    return [RunScores(name, None, 0, scores) for name, scores in found.items()]


def _way_back(translator: Translator | None) -> Translations | None:
    return None if translator is None else translator.translate_tensor


def _score(
    images: EvaluationImages,
    direction: str,
    metrics: Sequence[tuple[str, Callable[[], Metric]]],
    translate: Translations | None,
    back: Translations | None,
    answer: Callable[[Sequence[int], Tensor], Tensor] | None = None,
) -> DirectionScores:
    source, target = Direction(direction).source, Direction(direction).target
    gauges = _make_gauges(metrics, direction, paired=images.paired, reconstructs=back is not None)
    domain = _chunks(len(images.files(target)), len(images.files(source)))
    for places, others in zip(_chunks(len(images.files(source)), len(images.files(target))), domain, strict=True):
        inputs = images.read(source, places)
        fakes = (translate(inputs) if translate else answer(places, inputs) if answer else inputs).cpu()
        for gauge in gauges:
            plain = not gauge.label_maps
            if gauge.reconstruction:
                gauge.add(back(fakes).cpu() if back else fakes, inputs)
            elif gauge.metric.against == "domain":
                gauge.metric.update(fakes, images.read(target, others))
            elif gauge.metric.against == "ground_truth":
                gauge.add(fakes, images.read(target, places, label_maps=not plain))
            else:
                gauge.add(fakes, inputs if plain else images.read(source, places, label_maps=True))
    figures: dict[str, Estimate] = {}
    each: dict[str, list[float]] = {}
    better: dict[str, int] = {}
    for gauge in gauges:
        found, single = gauge.read()
        free = {name: _free_name(f"{gauge.prefix}{name}", gauge.name, figures) for name in found}
        figures |= {free[name]: figure for name, figure in found.items()}
        each |= {free[name]: values for name, values in single.items()}
        better[next(iter(free.values()))] = 1 if gauge.metric.higher_is_better else -1
    notes = dict.fromkeys(
        f"{gauge.name}: {said}" for gauge in gauges if (said := read_traits(gauge.metric, MetricTraits).notes)
    )
    names = [file.name for file in images.files(source)]
    return DirectionScores(direction, figures, each, names, better, list(notes))


@dataclass
class _Gauge:
    """A metric at work, with the rows of single images where it has them."""

    name: str
    metric: Metric
    reconstruction: bool
    rows: list[Tensor] = field(default_factory=list)

    @property
    def label_maps(self) -> bool:
        return read_traits(self.metric, MetricTraits).label_maps

    @property
    def prefix(self) -> str:
        return _RECONSTRUCTION if self.reconstruction else ""

    def add(self, images: Tensor, targets: Tensor) -> None:
        if isinstance(self.metric, SummedMetric):
            with torch.no_grad():
                self.rows.append(self.metric.statistics(images, targets))
        else:
            self.metric.update(images, targets)

    def read(self) -> tuple[dict[str, Estimate], dict[str, list[float]]]:
        """The figures, and those of each image."""
        if not isinstance(self.metric, SummedMetric):
            return {name: Estimate(value) for name, value in self.metric.compute().items()}, {}
        rows = torch.cat(self.rows)
        single = [self.metric.figures(row) for row in rows]
        figures = bootstrap(rows, self.metric.figures)
        return figures, {name: [figure[name] for figure in single] for name in figures}


def _make_gauges(
    metrics: Sequence[tuple[str, Callable[[], Metric]]], direction: str, *, paired: bool, reconstructs: bool
) -> list[_Gauge]:
    gauges: list[_Gauge] = []
    for name, make in metrics:
        metric = make()
        traits = read_traits(metric, MetricTraits)
        if traits.direction not in (None, direction):
            continue
        if metric.against != "ground_truth" or paired:
            gauges.append(_Gauge(name, metric, reconstruction=False))
        # What measures an image by its truth can measure the way there and back by where it started.
        if metric.against == "ground_truth" and reconstructs and not traits.label_maps:
            gauges.append(_Gauge(name, make(), reconstruction=True))
    return gauges


def _chunks(count: int, other: int) -> Iterator[range]:
    """`count` places in as many parts as `other` places come in, none of them empty."""
    parts = min(math.ceil(max(count, other) / _BATCH), count, other)
    for part in range(parts):
        yield range(part * count // parts, (part + 1) * count // parts)


def _free_name(name: str, metric: str, taken: Mapping[str, Estimate]) -> str:
    return name if name not in taken else f"{metric}/{name}"

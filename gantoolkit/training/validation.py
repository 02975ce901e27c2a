"""Validation: measuring a system while it trains, with the metric of its recipe, on the test images of its data set."""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from gantoolkit.data.encoding import encoding_of
from gantoolkit.data.evaluation_images import EvaluationImages
from gantoolkit.errors import DataError, RecipeError
from gantoolkit.plugins import Direction, System
from gantoolkit.recipes import Recipe
from gantoolkit.recipes.block_spec import bind
from gantoolkit.runtime.memory import release_cached_memory
from gantoolkit.training.measuring import Gauge, measure
from gantoolkit.training.samples import evaluation_mode
from gantoolkit.training.translation import run_generator

__all__ = ["Measurement", "Validation"]


@dataclass(frozen=True)
class Measurement:
    """The values of a metric in all directions.

    Args:
        values: In their units, named `A2B/psnr`.
        units: The unit of each value by the same names; pure numbers have none.
        score: What decides which checkpoint is the best: the first value, averaged over directions; more is better. Differences
            of pixels count as shares of their domain's range, because values of different units have no mean.
    """

    values: Mapping[str, float]
    units: Mapping[str, str]
    score: float


class Validation:
    """The metric of a recipe, in each direction that it applies to.

    Args:
        recipe: A resolved recipe; its `metric` and `training.evaluate_images` apply.
        system: The system to measure.
        data: Folder of the data set.
        device: The device of the networks, and of a metric that computes on any device. Between measurements, the metric holds
            none of its memory.

    Raises:
        DataError: When there are no test images, or the metric needs pairs and there are none.
        RecipeError: When the metric applies to no direction of the system.
    """

    def __init__(self, recipe: Recipe, system: System, data: Path, device: torch.device) -> None:
        self.system, self.device = system, device
        self.name = recipe.metric.name
        make_metric = bind("metrics", recipe.metric)
        gauge = Gauge(self.name, make_metric())
        only, self.higher_is_better = gauge.traits.direction, gauge.metric.higher_is_better
        self.directions = [direction for direction in system.directions if only in (None, direction)]
        if not self.directions:
            raise RecipeError(
                f"{recipe.name}.metric ({self.name}): applies to {only} only, and this system translates "
                f"{', '.join(system.directions)}"
            )
        try:
            images = EvaluationImages.open(data, recipe.data)
        except DataError as error:
            raise DataError(f"training.evaluate_every: evaluation needs test images: {error}") from error
        if gauge.metric.against == "ground_truth" and not images.paired:
            problem = f" ({images.pairing_problem})" if images.pairing_problem else ""
            raise DataError(
                f"training.evaluate_every: the metric '{self.name}' needs pairs, and the test images in {data} are not pairs"
                f'{problem}: give the files of testA and testB the same names, set metric = "fid" or "kid", or '
                "training.evaluate_every = 0"
            )
        # Metrics such as FID load a network, which the next evaluation reuses.
        self.metrics = {direction: make_metric() for direction in self.directions}
        self.images = images.take(recipe.training.evaluate_images).readable()
        if self.images.skipped:
            raise DataError(f"training.evaluate_every: {self.images.skipped[0]}")

    def measure(self) -> Measurement:
        """Measure all directions. Networks are in evaluation mode meanwhile."""
        values: dict[str, float] = {}
        units: dict[str, str] = {}
        firsts: list[float] = []
        with evaluation_mode(self.system), torch.no_grad():
            for direction in self.directions:
                gauge = self._measure(direction)
                values |= {f"{direction}/{name}": value for name, value in gauge.values().items()}
                units |= {f"{direction}/{name}": unit for name in gauge.values() if (unit := gauge.unit(name))}
                firsts.append(next(iter(gauge.raw_values().values())))
                gauge.metric.reset()
        release_cached_memory(self.device)
        return Measurement(values, units, statistics.fmean(firsts) * (1 if self.higher_is_better else -1))

    def _measure(self, direction: str) -> Gauge:
        encoding = encoding_of(self.images.settings, Direction(direction).target)
        network, gauge = self.system.directions[direction], Gauge(self.name, self.metrics[direction], encoding=encoding)
        gauge.metric.reset()
        measure(self.images, direction, [gauge], lambda inputs, _: run_generator(network, inputs), device=self.device)
        return gauge

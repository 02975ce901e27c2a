"""Measuring a system while it trains, by its recipe's metric, on the test images of its data set."""

import statistics
from collections.abc import Mapping
from pathlib import Path

import torch

from gantoolkit.data.evaluation_images import EvaluationImages
from gantoolkit.errors import DataError, RecipeError
from gantoolkit.plugins import Direction, Metric, MetricTraits, System, read_traits
from gantoolkit.recipes import Recipe
from gantoolkit.recipes.block_spec import bind
from gantoolkit.training.samples import evaluation_mode
from gantoolkit.training.translation import run_generator

__all__ = ["Validation"]

_BATCH = 8


class Validation:
    """The recipe's metric in each direction that it makes sense for.

    Args:
        recipe: Resolved; `metric` and `training.evaluate_images` are what counts here.
        system: What is measured.
        data: Folder of the data set.
        device: Where the networks are.

    Raises:
        DataError: When there are no test images, or the metric needs pairs and there are none.
        RecipeError: When the metric makes sense for no direction of the system.
    """

    def __init__(self, recipe: Recipe, system: System, data: Path, device: torch.device) -> None:
        self.system, self.device = system, device
        make = bind("metrics", recipe.metric)
        metric = make()
        name, only = recipe.metric.name, read_traits(metric, MetricTraits).direction
        self.metrics: dict[str, Metric] = {
            direction: make() for direction in system.directions if only in (None, direction)
        }
        if not self.metrics:
            raise RecipeError(
                f"{recipe.name}.metric ({name}): makes sense for {only} alone, and this system "
                f"translates {', '.join(system.directions)}"
            )
        try:
            images = EvaluationImages.open(data, recipe.data)
        except DataError as error:
            raise DataError(f"training.evaluate_every: measuring needs test images: {error}") from error
        if metric.against == "ground_truth" and not images.paired:
            raise DataError(
                f"training.evaluate_every: the metric '{name}' needs pairs, and the files of testA and testB in "
                f"{data} do not have "
                'the same names; set metric = "fid" or "kid", or training.evaluate_every = 0'
            )
        self.images = images.take(recipe.training.evaluate_images).readable()
        if self.images.skipped:
            raise DataError(f"training.evaluate_every: {self.images.skipped[0]}")
        self.higher_is_better = metric.higher_is_better

    def measure(self) -> dict[str, float]:
        """All figures, named as in `A2B/psnr`, with every network in evaluation mode; modes are restored."""
        with evaluation_mode(self.system), torch.no_grad():
            return {
                f"{direction}/{name}": value
                for direction, metric in self.metrics.items()
                for name, value in self._measure(direction, metric).items()
            }

    def judge(self, figures: Mapping[str, float]) -> float:
        """What decides which checkpoint is the best: the first figure, in the mean over directions; more is better."""
        firsts: dict[str, float] = {}
        for name, value in figures.items():
            firsts.setdefault(name.partition("/")[0], value)
        return statistics.fmean(firsts.values()) * (1 if self.higher_is_better else -1)

    def _measure(self, direction: str, metric: Metric) -> Mapping[str, float]:
        source, target = Direction(direction).source, Direction(direction).target
        metric.reset()
        label_maps = read_traits(metric, MetricTraits).label_maps
        domain = {"ground_truth": target, "input": source, "domain": target}[metric.against]
        count = min(len(self.images.files(source)), len(self.images.files(domain)))
        for first in range(0, count, _BATCH):
            places = range(first, min(first + _BATCH, count))
            inputs = self.images.read(source, places).to(self.device)
            fakes = run_generator(self.system.directions[direction], inputs).cpu()
            metric.update(fakes, self.images.read(domain, places, label_maps=label_maps))
        return metric.compute()

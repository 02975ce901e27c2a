"""Predict the cost of training a recipe: whether it fits into memory, what would fit, and how long it takes."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from gantoolkit.cost.fitting import Proposal, needed_bytes, propose, resize
from gantoolkit.cost.measurement import describe_device
from gantoolkit.cost.step_cost import StepCost, count_step, count_translations
from gantoolkit.cost.timing import time_steps
from gantoolkit.data import TrainingBatches, open_dataset
from gantoolkit.errors import RecipeError
from gantoolkit.recipes import Recipe
from gantoolkit.recipes.building import pairing_of
from gantoolkit.runtime.device import select_device
from gantoolkit.runtime.memory import available_memory

__all__ = ["Plan", "Probe", "TimeEstimate", "estimate_time", "extrapolate", "plan", "smaller_recipes"]

_SMALLEST_CROP = 32
_TIMED_STEPS = 2
_WARM_UP = 1
_BUDGET_S = 40.0
_FEWEST_PROBES = 2


@dataclass(frozen=True)
class Probe:
    """Timed steps of one size.

    Args:
        crop_size: Side of the crops.
        batch_size: Pairs per step.
        flops: Floating-point operations of a step.
        seconds: Seconds of each step.
    """

    crop_size: int
    batch_size: int
    flops: float
    seconds: tuple[float, ...]

    @property
    def seconds_per_step(self) -> float:
        return statistics.median(self.seconds)

    @property
    def flops_per_second(self) -> float:
        return self.flops / self.seconds_per_step


@dataclass(frozen=True)
class TimeEstimate:
    """The estimated time of a step.

    Args:
        seconds_per_step: The operations of a step at the speed of the last probe, or that probe itself if it has full size.
        low: The lower of that time and the one at the speed between the last two probes, which leaves out a constant overhead.
        high: The higher of the two. Both bounds are widened by the variation of the timed steps.
        probes: From small to large.
    """

    seconds_per_step: float
    low: float
    high: float
    probes: tuple[Probe, ...]


@dataclass(frozen=True)
class Plan:
    """The predicted cost of a recipe.

    Args:
        recipe: The name of the recipe.
        device: The device, in words.
        torch: The version of torch.
        batch_size: Pairs per step.
        crop_size: Side of the crops in pixels.
        cost: Operations and memory of a step.
        translation_flops: Operations of translating one crop, by direction.
        needed_bytes: Required memory: the peak of the tensors plus `gantoolkit.runtime.memory.MARGIN`.
        available_bytes: Available memory; None if unknown.
        fits: Whether the required memory is available.
        proposals: The largest batch and the largest crop that fit.
        time: The estimated time of a step; None if not even a small step fits.
        steps: Steps of the run, if the data set or the number of steps is known.
        hours: Hours of the run: estimate, lower bound, upper bound.
    """

    recipe: str
    device: str
    torch: str
    batch_size: int
    crop_size: int
    cost: StepCost
    translation_flops: dict[str, int]
    needed_bytes: int
    available_bytes: int | None
    fits: bool | None
    proposals: tuple[Proposal, ...]
    time: TimeEstimate | None
    steps: int | None
    hours: tuple[float, float, float] | None


def plan(
    recipe: Recipe,
    *,
    data: str | Path | None = None,
    steps: int | None = None,
    device: str | None = None,
    memory: int | None = None,
) -> Plan:
    """Predict the memory and the time of training a recipe, and find the largest batch and the largest crop that fit.

    Memory is counted in a step on the meta device. Time is measured on small crops, for about half a minute, and scaled by the
    number of operations.

    Args:
        recipe: Any recipe.
        data: Folder of its data set, which determines the number of steps.
        steps: The number of steps, if there is no data set yet.
        device: As for `gantoolkit.runtime.device.select_device`.
        memory: Bytes that the run may use; by default, what is available on the device.

    Raises:
        RecipeError, PluginError: When the recipe cannot work, or its step cannot run on the meta device.
        DataError: When the data set cannot be used.
        CheckpointError: When a pretrained part cannot be loaded.
    """
    recipe, target = recipe.check(), select_device(device)
    batches = None if data is None else _open_batches(recipe, data)
    if batches is not None:
        steps = recipe.training.epochs * batches.steps_per_epoch
    cost = count_step(recipe)
    needed, free = needed_bytes(cost), available_memory(target)
    available = free if memory is None else memory
    pairs = None if batches is None else len(batches.samples)
    estimate = estimate_time(recipe, cost, target, limit=free)
    return Plan(
        recipe=recipe.name,
        device=describe_device(target),
        torch=torch.__version__,
        batch_size=recipe.training.batch_size,
        crop_size=recipe.data.crop_size,
        cost=cost,
        translation_flops=count_translations(recipe),
        needed_bytes=needed,
        available_bytes=available,
        fits=None if available is None else needed <= available,
        proposals=() if available is None else propose(recipe, available, pairs=pairs),
        time=estimate,
        steps=steps,
        hours=None if steps is None or estimate is None else _hours(estimate, steps),
    )


def estimate_time(
    recipe: Recipe, cost: StepCost, device: torch.device, *, limit: int | None = None, budget_s: float = _BUDGET_S
) -> TimeEstimate | None:
    """Time steps on crops, then batches, of growing size while the budget lasts, and scale the last by the operations.

    At least two sizes are timed, if there are two.

    Args:
        recipe: A resolved recipe.
        cost: The cost of its step.
        device: The device.
        limit: Bytes that a probe may use.
        budget_s: Seconds for all probes; a probe that is expected to exceed it is skipped.
    """
    probes: list[Probe] = []
    start = time.perf_counter()
    for small in smaller_recipes(recipe):
        try:
            small_cost = count_step(small)
        except RecipeError:  # the networks are too deep for crops of this size, or need more than one pair
            continue
        if limit is not None and needed_bytes(small_cost) > limit:
            break
        if len(probes) >= _FEWEST_PROBES:
            expected_s = (_WARM_UP + _TIMED_STEPS) * _scale(probes, small_cost.flops)[0]
            if time.perf_counter() - start + expected_s > budget_s:
                break
        with time_steps(small, device) as steps:
            steps.warm_up(_WARM_UP)
            seconds = tuple(steps.time() for _ in range(_TIMED_STEPS))
        probes.append(Probe(small.data.crop_size, small.training.batch_size, small_cost.flops, seconds))
    return extrapolate(probes, recipe, cost) if probes else None


def smaller_recipes(recipe: Recipe) -> list[Recipe]:
    """The recipe with single pairs of small crops, of larger crops, and so on up to the recipe itself."""
    crop, batch = recipe.data.crop_size, recipe.training.batch_size
    halvings = max(0, (crop // _SMALLEST_CROP).bit_length() - 1)
    sides = [crop >> power for power in range(halvings, -1, -1) if crop % (1 << power) == 0]
    sizes = [*((side, 1) for side in sides), (crop, batch)]
    return [resize(recipe, crop_size=side, batch_size=count) for side, count in dict.fromkeys(sizes)]


def extrapolate(probes: Sequence[Probe], recipe: Recipe, cost: StepCost) -> TimeEstimate:
    """The time of a full step, from probes of smaller ones."""
    last = probes[-1]
    if (last.crop_size, last.batch_size) == (recipe.data.crop_size, recipe.training.batch_size):
        likely = last.seconds_per_step
        return TimeEstimate(likely, min(last.seconds), max(last.seconds), tuple(probes))
    affine, likely = _scale(probes, cost.flops)
    spread = max(max(probe.seconds) / min(probe.seconds) for probe in probes[-2:])
    return TimeEstimate(likely, min(affine, likely) / spread, max(affine, likely) * spread, tuple(probes))


def _scale(probes: Sequence[Probe], flops: float) -> tuple[float, float]:
    """Seconds of a step: on the line through the last two probes, and on the line through zero and the last."""
    last = probes[-1]
    proportional = flops / last.flops_per_second
    before = probes[-2] if len(probes) > 1 else None
    if before is None or last.flops <= before.flops or last.seconds_per_step <= before.seconds_per_step:
        return proportional, proportional
    slope = (last.seconds_per_step - before.seconds_per_step) / (last.flops - before.flops)
    return last.seconds_per_step + (flops - last.flops) * slope, proportional


def _open_batches(recipe: Recipe, data: str | Path) -> TrainingBatches:
    dataset = open_dataset(data, pairing=pairing_of(recipe))
    return TrainingBatches(
        dataset, recipe.data, batch_size=recipe.training.batch_size, seed=recipe.training.seed, workers=0
    )


def _hours(estimate: TimeEstimate, steps: int) -> tuple[float, float, float]:
    first, second, third = (steps * each / 3600 for each in (estimate.seconds_per_step, estimate.low, estimate.high))
    return first, second, third

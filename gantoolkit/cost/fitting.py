"""Find the largest batch and the largest crop whose training step fits into memory."""

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count

import torch

from gantoolkit.cost.step_cost import MetaTrainer, StepCost, count_step
from gantoolkit.errors import RecipeError
from gantoolkit.recipes import Recipe
from gantoolkit.recipes.building import build_system, size_multiple_of
from gantoolkit.runtime.memory import MARGIN

__all__ = ["Proposal", "largest_fitting", "needed_bytes", "propose", "resize"]

_LARGEST_CROP = 16_384
_LARGEST_BATCH = 65_536
_GUESSES = 6
"""Guesses by the fitted line before the search bisects."""


@dataclass(frozen=True)
class Proposal:
    """Settings that fit.

    Args:
        batch_size: Pairs per step.
        crop_size: Side of the crops in pixels.
        needed_bytes: Memory of a step with these settings, including the margin.
        settings: The arguments of `--set`.
    """

    batch_size: int
    crop_size: int
    needed_bytes: int
    settings: tuple[str, ...]


def needed_bytes(cost: StepCost) -> int:
    """The required memory of a step: its tensors plus the margin."""
    return round(cost.peak_bytes * (1 + MARGIN))


def propose(recipe: Recipe, limit: int, *, pairs: int | None = None) -> tuple[Proposal, ...]:
    """The largest batch at the recipe's crop, and the largest crop at its batch; if no batch fits, also that of single pairs.

    Args:
        recipe: A resolved recipe.
        limit: Available bytes.
        pairs: The most pairs that a batch can have, if known.

    Raises:
        RecipeError: When its step cannot run on the meta device.
    """
    crop, batch = recipe.data.crop_size, recipe.training.batch_size
    trainer = MetaTrainer(recipe)
    fitting_batch = largest_fitting(
        range(1, (pairs or _LARGEST_BATCH) + 1),
        lambda size: _bytes_if_it_works(lambda: trainer.count(size)),
        limit,
        start=batch,
    )
    sizes = [(fitting_batch, crop), (batch, _largest_crop(recipe, limit))]
    if fitting_batch is None and batch > 1:
        sizes.append((1, _largest_crop(resize(recipe, batch_size=1), limit)))
    return tuple(_describe(recipe, size, side) for size, side in sizes if size and side)


def resize(recipe: Recipe, *, batch_size: int | None = None, crop_size: int | None = None) -> Recipe:
    """The recipe with another batch or crop; `load_size` grows if the crop would not fit into it."""
    data = recipe.data
    changes: dict[str, int] = {}
    if batch_size is not None:
        changes["training.batch_size"] = batch_size
    if crop_size is not None:
        changes["data.crop_size"] = crop_size
        if data.resize != "none" and crop_size > data.load_size:
            changes["data.load_size"] = -(-crop_size * data.load_size // data.crop_size)
    return recipe.swap(changes).resolve()


def largest_fitting(
    sizes: Sequence[int], bytes_at: Callable[[int], int], limit: int, *, start: int, power: int = 1
) -> int | None:
    """The largest of `sizes` whose bytes are within the limit; None if the smallest exceeds it.

    Args:
        sizes: From small to large.
        bytes_at: Increases with the size, about linearly in `size ** power`, which the search uses to guess; 0 for sizes that
            are too small to work.
        limit: In bytes.
        start: The first size to try.
        power: 1 for a batch, 2 for the side of a crop.
    """
    fits, too_large = -1, len(sizes)
    place = max(0, bisect_right(sizes, start) - 1)
    points: list[tuple[int, int]] = []
    largest = 0
    for attempt in count():
        size = sizes[place]
        needed = bytes_at(size)
        if needed <= limit:
            fits, largest = place, needed
        else:
            too_large = place
        if too_large - fits <= 1:
            return sizes[fits] if largest else None
        if needed:
            points.append((size**power, needed))
        guess = bisect_right(sizes, _meet(points, limit) ** (1 / power)) - 1
        if attempt >= _GUESSES:
            guess = (fits + too_large) // 2
        place = min(max(guess, fits + 1), too_large - 1)
    return None


def _meet(points: Sequence[tuple[int, int]], limit: int) -> float:
    """Where the line through the last two points, or through zero and the only point, meets the limit."""
    (x0, y0), (x, y) = [(0, 0), (0, 0), *points][-2:]
    return max(0.0, x + (limit - y) * (x - x0) / (y - y0)) if y != y0 else 0.0


def _largest_crop(recipe: Recipe, limit: int) -> int | None:
    def bytes_at(crop_size: int) -> int:
        return _bytes_if_it_works(lambda: count_step(resize(recipe, crop_size=crop_size)))

    return largest_fitting(_crops(recipe), bytes_at, limit, start=recipe.data.crop_size, power=2)


def _bytes_if_it_works(count_one: Callable[[], StepCost]) -> int:
    """0 bytes for a size that does not work: batch norm rejects single values, and deep networks reject small crops."""
    try:
        return needed_bytes(count_one())
    except RecipeError:
        return 0


def _crops(recipe: Recipe) -> Sequence[int]:
    """The sides that the networks may accept: multiples of `size_multiple`, or else halvings and doublings of the recipe's."""
    crop = recipe.data.crop_size
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        multiple = math.lcm(*map(size_multiple_of, build_system(recipe).directions.values()))
    try:
        MetaTrainer(resize(recipe, crop_size=crop + multiple))
    except RecipeError:
        first = crop & -crop  # the largest power of two that divides it
        return [crop // first * 2**power for power in range((_LARGEST_CROP * first // crop).bit_length())]
    return range(multiple, _LARGEST_CROP + 1, multiple)


def _describe(recipe: Recipe, batch_size: int, crop_size: int) -> Proposal:
    resized = resize(recipe, batch_size=batch_size, crop_size=crop_size)
    fields = {
        "training.batch_size": (resized.training.batch_size, recipe.training.batch_size),
        "data.crop_size": (resized.data.crop_size, recipe.data.crop_size),
        "data.load_size": (resized.data.load_size, recipe.data.load_size),
    }
    settings = tuple(f"{field}={new}" for field, (new, old) in fields.items() if new != old)
    return Proposal(batch_size, crop_size, needed_bytes(count_step(resized)), settings)

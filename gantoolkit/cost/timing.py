"""Steps that are really taken, on random images, and how long they take."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from gantoolkit.cost.out_of_memory import explain_out_of_memory
from gantoolkit.cost.rates import synchronize
from gantoolkit.cost.stages import follow_stages
from gantoolkit.recipes import Recipe
from gantoolkit.runtime.precision import Precision, arithmetic
from gantoolkit.runtime.randomness import isolated_random_state, seed_everything
from gantoolkit.runtime.seeds import derive_seed
from gantoolkit.training import build_trainer
from gantoolkit.training.building import settle_precision

__all__ = ["Steps", "take_steps"]


class Steps:
    """The steps of a recipe's trainer, on one batch of random images; make it with `take_steps`."""

    def __init__(self, recipe: Recipe, device: torch.device, precision: Precision) -> None:
        self._recipe, self._device = recipe, device
        self._trainer = build_trainer(recipe, device, precision)
        self._trainer.begin_epoch(0)
        generator = torch.Generator().manual_seed(recipe.training.seed)
        self._batch = {domain: images.to(device) for domain, images in _random_images(recipe, generator).items()}
        self._number = 0
        self.cycle = math.lcm(*(phase.every for phase in self._trainer.system.phases))
        """Steps after which the same phases are due again."""

    def step(self) -> None:
        """Take the next step, as a run does."""
        seed_everything(derive_seed(self._recipe.training.seed, "step", self._number))
        self._trainer.step(self._batch, self._number)
        self._number += 1

    def time(self) -> float:
        """Seconds of a step, on average over those after which the same phases are due again."""
        synchronize(self._device)
        began = time.perf_counter()
        for _ in range(self.cycle):
            self.step()
        synchronize(self._device)
        return (time.perf_counter() - began) / self.cycle

    def time_stages(self) -> dict[str, float]:
        """Seconds of each stage of such a step, by name and in order; each waits for the one before it to be done."""
        seconds: dict[str, float] = {}
        begun = ("", 0.0)

        def begin(stage: str) -> None:
            nonlocal begun
            synchronize(self._device)
            now = time.perf_counter()
            if begun[0]:
                seconds[begun[0]] = seconds.get(begun[0], 0.0) + (now - begun[1]) / self.cycle
            begun = (stage, now)

        with follow_stages(self._trainer, begin):
            for _ in range(self.cycle):
                self.step()
        begin("")
        return seconds


@contextmanager
def take_steps(recipe: Recipe, device: torch.device, precision: Precision | None = None) -> Iterator[Steps]:
    """The steps of a resolved recipe, computed as a run does; global settings are as before when it is left.

    Args:
        precision: What networks compute in, where that was settled before.

    Raises:
        TrainingError: When there is not enough memory.
        CheckpointError: When a pretrained part cannot be had.
    """
    precision = precision or settle_precision(recipe, device)
    deterministic = recipe.training.deterministic
    with (
        explain_out_of_memory(recipe, device),
        isolated_random_state(device, deterministic=deterministic),
        arithmetic(precision, try_algorithms=not deterministic),
    ):
        yield Steps(recipe, device, precision)


def _random_images(recipe: Recipe, generator: torch.Generator) -> dict[str, Tensor]:
    shape = (recipe.training.batch_size, recipe.data.crop_size, recipe.data.crop_size)
    channels = {"A": recipe.data.channels_A, "B": recipe.data.channels_B}
    return {
        domain: torch.rand(shape[0], count, *shape[1:], generator=generator) * 2 - 1
        for domain, count in channels.items()
    }

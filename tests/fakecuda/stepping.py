"""Takes steps on the stand-in as the training loop does."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from _helpers.small import batch_of

from gantoolkit.recipes import Recipe
from gantoolkit.runtime.precision import backend_flags
from gantoolkit.runtime.randomness import isolated_random_state, seed_everything
from gantoolkit.training import Trainer, build_trainer
from gantoolkit.training.capture import CapturedStep

__all__ = ["STEPS_UNTIL_REPLAY", "Steps", "open_steps"]

STEPS_UNTIL_REPLAY = 5
"""Three steps warm up, the fourth is captured, the fifth replayed."""


@dataclass
class Steps:
    """The steps of a trainer on random images.

    Args:
        trainer: The trainer.
        recipe: Its recipe, resolved.
        device: Its device.
    """

    trainer: Trainer
    recipe: Recipe
    device: torch.device
    number: int = 0

    def __post_init__(self) -> None:
        self.step = CapturedStep(self.trainer) if self.recipe.training.capture else self.trainer.step

    def prepare(self) -> dict[str, torch.Tensor]:
        """The images of the next step, on the device."""
        batch = batch_of(self.recipe, self.recipe.training.batch_size, seed=self.number)
        return {domain: images.to(self.device) for domain, images in batch.items()}

    def take(self, batch: dict[str, torch.Tensor]) -> None:
        """Take a step, without reading its results."""
        seed_everything(self.number)
        self.trainer.begin_epoch(0)
        self.step(batch, self.number)
        self.number += 1

    def take_several(self, count: int) -> None:
        """Take steps."""
        for _ in range(count):
            self.take(self.prepare())


@contextmanager
def open_steps(recipe: Recipe, device: torch.device) -> Iterator[Steps]:
    """The steps of a recipe, with the settings of the backends that a run has."""
    recipe = recipe.resolve()
    deterministic = recipe.training.deterministic
    with isolated_random_state(device, deterministic=deterministic):
        trainer = build_trainer(recipe, device)
        with backend_flags(trainer.precision, try_algorithms=not deterministic):
            yield Steps(trainer, recipe, device)

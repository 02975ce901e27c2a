"""What is said where memory runs out: what a step takes, what there is, and what would fit."""

import gc
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from gantoolkit.cost.fitting import needed_bytes, propose, resize
from gantoolkit.cost.replay import count_step
from gantoolkit.errors import GantoolkitError, TrainingError
from gantoolkit.recipes import Recipe
from gantoolkit.runtime.device import is_out_of_memory
from gantoolkit.runtime.memory import available_memory, format_bytes

__all__ = ["explain_out_of_memory"]


@contextmanager
def explain_out_of_memory(
    recipe: Recipe, device: torch.device, *, world_size: int = 1, rest: str = ""
) -> Iterator[None]:
    """Turn an error that says that there is not enough memory into one that says what to do.

    Args:
        recipe: Resolved; its steps are what is computed.
        device: On which.
        world_size: Among how many each batch is shared.
        rest: What else there is to say, as the end of the sentence.

    Raises:
        TrainingError: In place of it.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)  # what the step had made is not needed any more
        gc.collect()
        parts = [_describe_need(recipe, device, world_size), rest]
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise TrainingError(
            f"{recipe.name}: not enough memory ({reason}); {'; '.join(part for part in parts if part)}"
        ) from error


def _describe_need(recipe: Recipe, device: torch.device, world_size: int) -> str:
    free = available_memory(device)
    own = resize(recipe, batch_size=-(-recipe.training.batch_size // world_size))
    try:
        needed = needed_bytes(count_step(own))
        # Where it should fit, another limit than the free memory has been met, and nothing is known of what would.
        fitting = propose(own, free) if free and needed > free and world_size == 1 else ()
    except (GantoolkitError, RuntimeError, MemoryError):  # blocks that cannot be counted, or not even memory for that
        return "take a smaller data.crop_size, training.batch_size or generator"
    there = f", {format_bytes(free)} are free" if free else ""
    settings = [" ".join(f"--set {setting}" for setting in proposal.settings) for proposal in fitting]
    cure = " or ".join(filter(None, settings)) or "a smaller data.crop_size, training.batch_size or generator"
    return f"a step of it takes about {format_bytes(needed)}{there}; take {cure}"

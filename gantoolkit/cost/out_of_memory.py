"""The message of an out-of-memory error: what a step needs, what is available, and what would fit."""

import gc
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from gantoolkit.cost.fitting import needed_bytes, propose, resize
from gantoolkit.cost.step_cost import count_step
from gantoolkit.errors import GantoolkitError, TrainingError
from gantoolkit.recipes import Recipe
from gantoolkit.runtime.device import is_out_of_memory
from gantoolkit.runtime.memory import available_memory, format_bytes

__all__ = ["explain_out_of_memory"]


@contextmanager
def explain_out_of_memory(
    recipe: Recipe, device: torch.device, *, world_size: int = 1, rest: str = ""
) -> Iterator[None]:
    """Turn an out-of-memory error into one that says what to do.

    Args:
        recipe: A resolved recipe, whose steps are run.
        device: The device.
        world_size: The number of processes that share each batch.
        rest: The end of the sentence.

    Raises:
        TrainingError: Instead of the out-of-memory error.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)  # frees the tensors of the step
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
        # If it should fit, another limit than the free memory was exceeded, and what would fit is unknown.
        fitting = propose(own, free) if free and needed > free and world_size == 1 else ()
    except (GantoolkitError, RuntimeError, MemoryError):  # blocks that cannot be counted, or no memory to count them
        return "use a smaller data.crop_size, training.batch_size or generator"
    available = f", {format_bytes(free)} are free" if free else ""
    settings = [" ".join(f"--set {setting}" for setting in proposal.settings) for proposal in fitting]
    cure = " or ".join(filter(None, settings)) or "a smaller data.crop_size, training.batch_size or generator"
    return f"a step needs about {format_bytes(needed)}{available}; use {cure}"

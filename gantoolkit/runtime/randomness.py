"""Seed the global random generators, and restore them afterwards."""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from gantoolkit.errors import TrainingError

__all__ = ["isolated_random_state", "seed_everything"]


def seed_everything(seed: int) -> None:
    """Seed the global generators of torch, `random` and NumPy.

    Dropout and third-party blocks draw from them. Seeding at every step makes saving their state unnecessary.
    """
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


@contextmanager
def isolated_random_state(device: torch.device, *, deterministic: bool = False) -> Iterator[None]:
    """Context manager that restores the global generators and the deterministic mode on exit.

    Args:
        device: If CUDA, the generator of this device is restored too.
        deterministic: Use deterministic algorithms inside.

    Raises:
        TrainingError: When an operation inside has no deterministic algorithm.
    """
    python_state, numpy_state, previous = (
        random.getstate(),
        np.random.get_state(),
        torch.are_deterministic_algorithms_enabled(),
    )
    if deterministic:
        # cuBLAS is deterministic only with a fixed workspace.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    settings: Any = torch.utils.deterministic
    fills_memory = settings.fill_uninitialized_memory
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.use_deterministic_algorithms(deterministic or previous)
        if deterministic:  # otherwise every new tensor is filled with NaN: a thousand more kernels in a step
            settings.fill_uninitialized_memory = False
        try:
            yield
        except RuntimeError as error:
            operation, phrase, _ = str(error).partition(" does not have a deterministic implementation")
            if not phrase:
                raise
            raise TrainingError(
                f"training.deterministic is true, but {operation} has no deterministic implementation on {device}; set it to "
                "false, or replace the block that uses this operation"
            ) from error
        finally:
            settings.fill_uninitialized_memory = fills_memory
            torch.use_deterministic_algorithms(previous)
            random.setstate(python_state)
            np.random.set_state(numpy_state)

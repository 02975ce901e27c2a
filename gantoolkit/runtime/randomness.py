"""Who owns the global random generators: a run, or a translation, seeds them and gives them back as it found them."""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

__all__ = ["isolated_random_state", "seed_everything"]


def seed_everything(seed: int) -> None:
    """Seed the global generators, which dropout and strangers' blocks draw from; so a step's draws need no saved state."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


@contextmanager
def isolated_random_state(device: torch.device, *, deterministic: bool = False) -> Iterator[None]:
    """Use the global generators, and deterministic algorithms if wanted; restore both afterwards."""
    python, numpy, before = random.getstate(), np.random.get_state(), torch.are_deterministic_algorithms_enabled()
    if deterministic:
        os.environ.setdefault(
            "CUBLAS_WORKSPACE_CONFIG", ":4096:8"
        )  # cuBLAS is deterministic only with a fixed workspace
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.use_deterministic_algorithms(deterministic or before)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before)
            random.setstate(python)
            np.random.set_state(numpy)

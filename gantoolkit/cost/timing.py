"""Timing: real training steps on random images, and large matrix products for comparison."""

import math
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from gantoolkit.cost.out_of_memory import explain_out_of_memory
from gantoolkit.recipes import Recipe
from gantoolkit.runtime.arithmetic import Arithmetic
from gantoolkit.runtime.precision import Precision, backend_flags, dtype_of
from gantoolkit.runtime.randomness import isolated_random_state, seed_everything
from gantoolkit.runtime.seeds import derive_seed
from gantoolkit.training import build_trainer
from gantoolkit.training.building import settle_arithmetic
from gantoolkit.training.capture import CapturedStep

__all__ = ["MatrixRate", "TimedSteps", "measure_matrix_rate", "synchronize", "time_steps"]

_MIN_PRODUCT_S = 0.05
_MAX_SIDE = 16384
_ROUNDS = 5


class TimedSteps:
    """Steps of a recipe's trainer on one batch of random images; see `time_steps`."""

    def __init__(self, recipe: Recipe, device: torch.device, arithmetic: Arithmetic) -> None:
        self._recipe, self._device = recipe, device
        self._trainer = build_trainer(recipe, device, arithmetic)
        self._trainer.begin_epoch(0)
        self._captures = recipe.training.capture and device.type == "cuda"
        self._run: Callable[..., object] = (
            CapturedStep(self._trainer, warn=False) if self._captures else self._trainer.step
        )
        generator = torch.Generator().manual_seed(recipe.training.seed)
        self._batch = {domain: images.to(device) for domain, images in _random_images(recipe, generator).items()}
        self._number = 0
        self.cycle = math.lcm(*(phase.every for phase in self._trainer.system.phases))
        """Steps after which the same phases are due again."""

    def step(self, *, capture: bool = True) -> None:
        """Take the next step as a run does.

        Args:
            capture: Replay a CUDA graph, if the run would.
        """
        seed_everything(derive_seed(self._recipe.training.seed, "step", self._number))
        (self._run if capture else self._trainer.step)(self._batch, self._number)
        self._number += 1

    def warm_up(self, cycles: int) -> None:
        """Take steps for this many cycles, or for as many as the capture of a CUDA graph takes."""
        for _ in range(max(cycles, CapturedStep.SETUP_STEPS) if self._captures else cycles):
            self.time()

    def time(self) -> float:
        """Seconds per step, on average over one cycle."""
        synchronize(self._device)
        start = time.perf_counter()
        for _ in range(self.cycle):
            self.step()
        synchronize(self._device)
        return (time.perf_counter() - start) / self.cycle

    def time_stages(self) -> dict[str, float]:
        """Seconds of each stage of a step without a graph, in order; each stage waits until the one before it is done."""
        seconds: dict[str, float] = {}
        current = ("", 0.0)

        def start(stage: str) -> None:
            nonlocal current
            synchronize(self._device)
            now = time.perf_counter()
            name, began = current
            if name:
                seconds[name] = seconds.get(name, 0.0) + (now - began) / self.cycle
            current = (stage, now)

        before, self._trainer.on_stage = self._trainer.on_stage, start
        try:
            for _ in range(self.cycle):
                self.step(capture=False)
        finally:
            self._trainer.on_stage = before
        start("")
        return seconds


@contextmanager
def time_steps(recipe: Recipe, device: torch.device, arithmetic: Arithmetic | None = None) -> Iterator[TimedSteps]:
    """The steps of a resolved recipe, computed as in a run. Global settings are restored at the end.

    Args:
        arithmetic: The arithmetic of the networks, if it was chosen before.

    Raises:
        TrainingError: When there is not enough memory.
        CheckpointError: When a pretrained part cannot be loaded.
    """
    arithmetic = arithmetic or settle_arithmetic(recipe, device)
    deterministic = recipe.training.deterministic
    with (
        explain_out_of_memory(recipe, device),
        isolated_random_state(device, deterministic=deterministic),
        backend_flags(arithmetic.precision, try_algorithms=not deterministic, compiles=recipe.training.compile),
    ):
        yield TimedSteps(recipe, device, arithmetic)


@dataclass(frozen=True)
class MatrixRate:
    """The median speed of a square matrix product.

    Args:
        flops_per_second: Two operations for each multiplication with its addition.
        side: Rows and columns of the matrices.
        arithmetic: fp32, tf32, bf16 or fp16.
    """

    flops_per_second: float
    side: int
    arithmetic: str


def measure_matrix_rate(device: torch.device, precision: Precision = "fp32") -> MatrixRate:
    """Multiply square random matrices of growing size until one product takes long enough to be timed."""
    with backend_flags(precision, try_algorithms=False):
        side, generator = 512, torch.Generator(device).manual_seed(0)
        while True:
            random = (torch.rand(side, side, device=device, generator=generator) for _ in range(2))
            matrices = [matrix.to(dtype_of(precision)) for matrix in random]
            _time_product(*matrices)
            seconds = _time_product(*matrices)
            if seconds >= _MIN_PRODUCT_S or side == _MAX_SIDE:
                break
            side *= 2
        median = statistics.median([seconds, *(_time_product(*matrices) for _ in range(_ROUNDS - 1))])
    return MatrixRate(2 * side**3 / median, side, precision)


def synchronize(device: torch.device) -> None:
    """Wait until all launched work of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _time_product(left: torch.Tensor, right: torch.Tensor) -> float:
    synchronize(left.device)
    start = time.perf_counter()
    torch.mm(left, right)
    synchronize(left.device)
    return time.perf_counter() - start


def _random_images(recipe: Recipe, generator: torch.Generator) -> dict[str, Tensor]:
    side, batch_size = recipe.data.crop_size, recipe.training.batch_size
    channels = {"A": recipe.data.channels_A, "B": recipe.data.channels_B}
    return {
        domain: torch.rand(batch_size, count, side, side, generator=generator) * 2 - 1
        for domain, count in channels.items()
    }

"""The operations and the memory of training steps and translations, counted on the meta device: nothing is allocated."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from gantoolkit.cost.counters import FlopCounter, LiveBytes
from gantoolkit.errors import RecipeError, first_line
from gantoolkit.plugins import Direction, ImagePool
from gantoolkit.recipes import Recipe
from gantoolkit.runtime.memory_format import bare_copy
from gantoolkit.training import build_trainer

__all__ = [
    "MetaTrainer",
    "StageCost",
    "StepCost",
    "count_step",
    "count_translation_bytes",
    "count_translations",
]

_META = torch.device("meta")
_MAX_CALLS = 10_000
"""A pool that still grows after so many calls is taken to be unbounded."""


@dataclass(frozen=True)
class StageCost:
    """The cost of one stage of a step.

    Args:
        name: The stage, as the trainer names it.
        flops: Floating-point operations of convolutions and matrix products: two for each multiplication with its addition.
        peak_bytes: The most bytes of live tensors at once in this stage, including those that stay between steps.
    """

    name: str
    flops: int
    peak_bytes: int


@dataclass(frozen=True)
class StepCost:
    """The cost of a training step, once optimizers and image pools are full.

    Its memory is that of tensors only; `gantoolkit.runtime.memory.MARGIN` accounts for the rest.

    Args:
        flops: Of a step, on average over steps where some phases do not run in every step.
        peak_bytes: The most bytes of live tensors at once; the sum of the following.
        weight_bytes: The networks.
        gradient_bytes: Gradients, which stay between steps.
        optimizer_bytes: The state of the optimizers.
        pool_bytes: Images in full pools.
        working_bytes: The rest: images, activations, intermediate results.
        stages: In the order of the step.
    """

    flops: float
    peak_bytes: int
    weight_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    pool_bytes: int
    working_bytes: int
    stages: tuple[StageCost, ...]


def count_step(recipe: Recipe) -> StepCost:
    """The cost of a training step of a resolved recipe.

    Raises:
        RecipeError: When its step cannot run on the meta device.
    """
    return MetaTrainer(recipe).count(recipe.training.batch_size)


def count_translations(recipe: Recipe) -> dict[str, int]:
    """Floating-point operations of translating one crop, by direction; generators that optimize are left out.

    Raises:
        RecipeError: When a generator cannot run on the meta device.
    """
    counts: dict[str, int] = {}
    with _explained(recipe):
        system = build_trainer(recipe, _META).system
        for direction, network in system.directions.items():
            if any(network is other for other in system.networks.values()):
                with FlopCounter() as counter, torch.no_grad():
                    network(_images(recipe, 1)[Direction(direction).source])
                counts[direction] = counter.flops
    return {direction: flops for direction, flops in counts.items() if flops}


def count_translation_bytes(network: nn.Module, shape: tuple[int, ...]) -> int:
    """The most bytes of live tensors at once while a generator translates, without its weights.

    Args:
        network: A generator, on any device.
        shape: The shape of its input, (N, in_channels, H, W), in float32.
    """
    with torch.inference_mode():
        copy = bare_copy(network).to(_META).float()  # its weights may be rounded
    with LiveBytes() as live, torch.inference_mode():
        live.start_peak()
        before = live.now
        copy(torch.zeros(shape, device=_META))
        return live.peak - before


class MetaTrainer:
    """The trainer of a recipe on the meta device, with full optimizers and image pools.

    Args:
        recipe: A resolved recipe.

    Raises:
        RecipeError: When its step cannot run on the meta device.
    """

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._live = LiveBytes()
        with _explained(recipe), self._live:
            self._trainer = build_trainer(recipe, _META)
            self._fill(_images(recipe, recipe.training.batch_size))

    def count(self, batch_size: int) -> StepCost:
        """The cost of a step on a batch.

        Raises:
            RecipeError: When it cannot run on the meta device.
        """
        # On a real device these optimizers are fused and allocate nothing; on the meta device they cannot be.
        optimizers = self._trainer.optimizers.items()
        fused = {f"{name} optimizer" for name, optimizer in optimizers if optimizer.defaults.get("foreach") is False}
        stages: list[StageCost] = []
        with _explained(self._recipe), self._live, FlopCounter() as counter:
            current = ("", 0)

            def start(stage: str) -> None:
                nonlocal current
                name, before = current
                if name:
                    peak = self._live.now if name in fused else self._live.peak
                    stages.append(StageCost(name, counter.flops - before, peak))
                current = (stage, counter.flops)
                self._live.start_peak()

            batch = _images(self._recipe, batch_size)
            self._trainer.on_stage = start
            self._trainer.step(batch)
            start("")
        persistent = self._persistent_bytes()
        peak = max(stage.peak_bytes for stage in stages)
        every = {phase.name: phase.every for phase in self._trainer.system.phases}
        return StepCost(
            flops=sum(stage.flops / every.get(stage.name.rpartition(" ")[0], 1) for stage in stages),
            peak_bytes=peak,
            **persistent,
            working_bytes=peak - sum(persistent.values()),
            stages=tuple(stages),
        )

    def _fill(self, batch: dict[str, Tensor]) -> None:
        """Take the first step, and call every pool with its input of this step until it stops growing."""
        pools = self._trainer.system.pools
        inputs: dict[str, Tensor] = {}
        originals = dict(pools)
        for name, pool in originals.items():
            pools[name] = cast(ImagePool, _RecordingPool(pool, name, inputs))
        try:
            self._trainer.step(batch)
        finally:
            pools.update(originals)
        for name, fakes in inputs.items():
            size = -1
            for _ in range(_MAX_CALLS):
                originals[name](fakes)
                before, size = size, _bytes_of(originals[name].state_dict())
                if size == before:
                    break

    def _persistent_bytes(self) -> dict[str, int]:
        networks = self._trainer.system.networks.values()
        parameters = [parameter for network in networks for parameter in network.parameters()]
        optimizers = self._trainer.optimizers.values()
        return {
            "weight_bytes": _bytes_of([parameters, [list(network.buffers()) for network in networks]]),
            "gradient_bytes": _bytes_of([parameter.grad for parameter in parameters]),
            "optimizer_bytes": _bytes_of([list(optimizer.state.values()) for optimizer in optimizers]),
            "pool_bytes": _bytes_of([pool.state_dict() for pool in self._trainer.system.pools.values()]),
        }


class _RecordingPool:
    """An image pool that records its last input."""

    def __init__(self, pool: ImagePool, name: str, inputs: dict[str, Tensor]) -> None:
        self._pool, self._name, self._inputs = pool, name, inputs

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def __call__(self, fakes: Tensor) -> Tensor:
        self._inputs[self._name] = fakes.detach()
        return self._pool(fakes)


def _images(recipe: Recipe, batch_size: int) -> dict[str, Tensor]:
    side = recipe.data.crop_size
    channels = {"A": recipe.data.channels_A, "B": recipe.data.channels_B}
    return {domain: torch.zeros(batch_size, count, side, side, device=_META) for domain, count in channels.items()}


def _bytes_of(tree: Any) -> int:
    """Bytes of the meta tensors in a tree, each storage once."""
    storages = [
        tensor.untyped_storage() for tensor in tree_leaves(tree) if isinstance(tensor, Tensor) and tensor.is_meta
    ]
    return sum({id(storage): storage.nbytes() for storage in storages}.values())


@contextmanager
def _explained(recipe: Recipe) -> Iterator[None]:
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    except (RuntimeError, ValueError) as error:
        raise RecipeError(
            f"{recipe.name}: a step cannot run on the meta device ({first_line(error)}), so its cost can be measured but not "
            "predicted"
        ) from error

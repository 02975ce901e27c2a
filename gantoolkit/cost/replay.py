"""The work and the memory of a training step, from steps on tensors without memory: nothing is allocated."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from gantoolkit.cost.ledger import Ledger
from gantoolkit.cost.stages import follow_stages, phase_of
from gantoolkit.cost.work import WorkCounter
from gantoolkit.errors import RecipeError
from gantoolkit.plugins import Direction, ImagePool
from gantoolkit.recipes import Recipe
from gantoolkit.training import build_trainer

__all__ = ["Replay", "StageCost", "StepCost", "count_step", "count_translations"]

_META = torch.device("meta")
_MOST_CALLS = 10_000
"""After so many calls, a pool that still grows is taken to have no end."""


@dataclass(frozen=True)
class StageCost:
    """What one stage of a step takes.

    Args:
        name: As `gantoolkit.cost.stages.follow_stages` has it.
        flops: Floating-point operations of convolutions and matrix products: two for each multiplication with its addition.
        peak_bytes: The most bytes of tensors that are alive at once in it, with all that stays between steps.
    """

    name: str
    flops: int
    peak_bytes: int


@dataclass(frozen=True)
class StepCost:
    """What a training step takes, once optimizers and image pools have filled.

    Its memory is that of tensors alone; `gantoolkit.runtime.memory.MARGIN` is for what comes on top.

    Args:
        flops: Of a step, on average over steps where some phases are not due in each.
        peak_bytes: The most bytes of tensors that are alive at once; the sum of those that follow.
        weight_bytes: The networks.
        gradient_bytes: Gradients; they stay between steps.
        optimizer_bytes: What the optimizers keep.
        pool_bytes: Images in full pools.
        working_bytes: Images, activations, intermediate results: the rest.
        stages: In their order.
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
    """The work and the memory of a training step of a resolved recipe; it allocates nothing, whatever the sizes.

    Raises:
        RecipeError: When a step of it cannot be taken without memory.
    """
    return Replay(recipe).count(recipe.training.batch_size)


def count_translations(recipe: Recipe) -> dict[str, int]:
    """Floating-point operations of translating one crop, by direction; what translates by a search is left out.

    Raises:
        RecipeError: When it cannot be done without memory.
    """
    counts: dict[str, int] = {}
    with _explained(recipe):
        system = build_trainer(recipe, _META).system
        for direction, network in system.directions.items():
            if any(network is other for other in system.networks.values()):
                with WorkCounter() as counter, torch.no_grad():
                    network(_images(recipe, 1)[Direction(direction).source])
                counts[direction] = counter.flops
    return {direction: flops for direction, flops in counts.items() if flops}


class Replay:
    """The trainer of a recipe on tensors without memory, with optimizers and pools as they are after some steps.

    Args:
        recipe: A resolved recipe.

    Raises:
        RecipeError: When a step of it cannot be taken so.
    """

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._ledger = Ledger()
        with _explained(recipe), self._ledger:
            self._trainer = build_trainer(recipe, _META)
            self._fill(_images(recipe, recipe.training.batch_size))

    def count(self, batch_size: int) -> StepCost:
        """What a step on so many pairs takes.

        Raises:
            RecipeError: When it cannot be taken.
        """
        every = {phase.name: phase.every for phase in self._trainer.system.phases}
        # With memory these optimizers are fused, and keep nothing in between; without it they cannot be.
        optimizers = self._trainer.optimizers.items()
        in_one_pass = {f"{name} optimizer" for name, made in optimizers if made.defaults.get("foreach") is False}
        stages: list[StageCost] = []
        with _explained(self._recipe), self._ledger, WorkCounter() as counter:
            begun = ("", 0)

            def begin(stage: str) -> None:
                nonlocal begun
                name, before = begun
                if name:
                    peak = self._ledger.now if name in in_one_pass else self._ledger.peak
                    stages.append(StageCost(name, counter.flops - before, peak))
                begun = (stage, counter.flops)
                self._ledger.start_peak()

            batch = _images(self._recipe, batch_size)
            with follow_stages(self._trainer, begin):
                self._trainer.step(batch)
            begin("")
        held = self._held()
        peak = max(stage.peak_bytes for stage in stages)
        return StepCost(
            flops=sum(stage.flops / every.get(phase_of(stage.name), 1) for stage in stages),
            peak_bytes=peak,
            **held,
            working_bytes=peak - sum(held.values()),
            stages=tuple(stages),
        )

    def _fill(self, batch: dict[str, Tensor]) -> None:
        """Take the first step, and call every pool, with what it was called with, until it grows no more."""
        pools = self._trainer.system.pools
        called: dict[str, Tensor] = {}
        originals = dict(pools)
        for name, pool in originals.items():
            pools[name] = cast(ImagePool, _Witness(pool, name, called))
        try:
            self._trainer.step(batch)
        finally:
            pools.update(originals)
        for name, fakes in called.items():
            size = -1
            for _ in range(_MOST_CALLS):
                originals[name](fakes)
                before, size = size, _bytes_of(originals[name].state_dict())
                if size == before:
                    break

    def _held(self) -> dict[str, int]:
        networks = self._trainer.system.networks.values()
        learning = [parameter for network in networks for parameter in network.parameters()]
        return {
            "weight_bytes": _bytes_of([learning, [list(network.buffers()) for network in networks]]),
            "gradient_bytes": _bytes_of([parameter.grad for parameter in learning]),
            "optimizer_bytes": _bytes_of([list(made.state.values()) for made in self._trainer.optimizers.values()]),
            "pool_bytes": _bytes_of([pool.state_dict() for pool in self._trainer.system.pools.values()]),
        }


class _Witness:
    """An image pool that remembers what it was called with."""

    def __init__(self, pool: ImagePool, name: str, called: dict[str, Tensor]) -> None:
        self._pool, self._name, self._called = pool, name, called

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def __call__(self, fakes: Tensor) -> Tensor:
        self._called[self._name] = fakes.detach()
        return self._pool(fakes)


def _images(recipe: Recipe, batch_size: int) -> dict[str, Tensor]:
    side = recipe.data.crop_size
    channels = {"A": recipe.data.channels_A, "B": recipe.data.channels_B}
    return {domain: torch.zeros(batch_size, count, side, side, device=_META) for domain, count in channels.items()}


def _bytes_of(tree: Any) -> int:
    """Bytes of the tensors without memory in it, each storage once."""
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
        reason = str(error).partition("\n")[0]
        raise RecipeError(
            f"{recipe.name}: no step of it can be taken on tensors without memory ({reason}), so that its work and memory "
            "can be measured but not predicted"
        ) from error

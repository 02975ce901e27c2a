"""A training step as a CUDA graph: captured once, then replayed without launching its kernels one by one."""

import random
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from gantoolkit.errors import first_line
from gantoolkit.plugins import Batch, ImagePool, ObservingDiscriminator, Phase, PlannedPool
from gantoolkit.runtime.graphs import GraphRecorder
from gantoolkit.runtime.streams import ParallelStreams
from gantoolkit.training.trainer import StepResult, Trainer, can_skip_on_device

__all__ = ["CapturedStep"]

Pool = TypeVar("Pool", bound=ImagePool)

_WARM_UP = 3
"""Steps before the capture: algorithms are chosen, moments and pools allocated."""

_MAX_GRAPHS = 8
"""Kinds of steps that are captured, by their due phases and the shapes of their batches."""


class CapturedStep:
    """Replays the steps of a trainer where possible, and otherwise runs them without a graph.

    A block that draws random numbers on the host, or reads values of the device, would repeat in every replay what it did in
    the capture. The state of the global random generators reveals the first; CUDA refuses the second.

    Inside a graph, independent networks run on two streams (`gantoolkit.runtime.streams`).

    With several processes, the graph contains their collectives, which NCCL allows. A process may run a step without a graph
    while others replay it, since all take part in the same collectives in the same order.

    Args:
        trainer: Its steps are captured.
        recorder: Captures graphs; by default on the device of the trainer.
        warn: Warn once if steps run without a graph. The reason is in `problem` in any case.
    """

    SETUP_STEPS = _WARM_UP + 1
    """Steps of one kind until it is captured, including the capture."""

    def __init__(
        self,
        trainer: Trainer,
        recorder: GraphRecorder | None = None,
        *,
        warn: bool = True,
    ) -> None:
        self.trainer = trainer
        self.recorder = recorder or GraphRecorder(trainer.device)
        self._streams = ParallelStreams(trainer.device) if trainer.device.type == "cuda" else None
        self._warns = warn
        self.problem = self._find_obstacle()
        self._graphs: dict[object, _Graph] = {}
        self._calls: dict[object, list[dict[str, list[int]]]] = {}
        self._restored = trainer.restored
        if self.problem:
            self._warn()
        else:
            self._move_learning_rates_to_device()

    def describe(self) -> str:
        """Whether steps are replayed, in words."""
        if self.problem:
            return f"no: {self.problem}"
        return "yes" if self._graphs else "not captured yet"

    def __call__(self, batch: Batch, number: int = 0, share: float = 1.0) -> StepResult:
        """Run a step as `Trainer.step` does."""
        if self.problem:
            return self.trainer.step(batch, number, share)
        if self._restored != self.trainer.restored:  # moments and pools are new tensors
            self._graphs.clear()
            self._calls.clear()
            self.recorder.forget()
            self._restored = self.trainer.restored
            self._move_learning_rates_to_device()
        due = self.trainer.due(number)
        kind = (share, *(phase.name for phase in due), *((domain, images.shape) for domain, images in batch.items()))
        if kind in self._graphs:
            return self._graphs[kind].replay(self.trainer.to_memory_format(batch))
        if len(self._graphs) == _MAX_GRAPHS:
            return self.trainer.step(batch, number, share)
        calls = self._calls.setdefault(kind, [])
        if len(calls) < _WARM_UP:
            pools = {name: _CountingPool(pool) for name, pool in self.trainer.system.pools.items()}
            with self._replace_pools(pools):
                result = self.recorder.warm_up(lambda: self.trainer.step(batch, number, share))
            calls.append({name: pool.counts for name, pool in pools.items()})
            return result
        batch = self.trainer.to_memory_format(batch)
        graph = self._capture(batch, due, share, calls[-1])
        if graph is None:
            return self.trainer.step(batch, number, share)
        self._graphs[kind] = graph
        return graph.replay(batch)

    def _capture(
        self, batch: Batch, due: Sequence[Phase], share: float, calls: Mapping[str, Sequence[int]]
    ) -> "_Graph | None":
        inputs = {domain: images.clone() for domain, images in batch.items()}
        pools = self.trainer.system.pools
        states = {name: _copy(pool.state_dict()) for name, pool in pools.items()}
        planned = {
            name: _PlannedPool(pool, calls[name], self.trainer.device)
            for name, pool in pools.items()
            if isinstance(pool, PlannedPool)
        }
        random_state = _HostRandomState()
        try:
            with self._replace_pools(planned):
                run, (names, losses, non_finite) = self.recorder.record(lambda: self._run(inputs, due, share))
        except torch.OutOfMemoryError:
            self.problem = "there is not enough memory for the graph"
        except RuntimeError as error:
            self.problem = f"it cannot be captured ({first_line(error)})"
        else:
            if any(pool.called != len(pool.counts) for pool in planned.values()):
                self.problem = "an image pool is called more or less often than before"
            elif random_state == _HostRandomState():
                phases = [phase.name for phase in due]
                return _Graph(run, inputs, list(planned.values()), names, losses, phases, non_finite)
            else:
                self.problem = "one of its blocks draws random numbers on the host"
        # The step is repeated without a graph, with the same decisions and random numbers.
        for name, pool in pools.items():
            pool.load_state_dict(states[name])
        random_state.restore()
        self._graphs.clear()
        self._warn()
        return None

    @contextmanager
    def _replace_pools(self, replacements: Mapping[str, ImagePool]) -> Iterator[None]:
        pools = self.trainer.system.pools
        originals = dict(pools)
        pools.update(replacements)
        try:
            yield
        finally:
            pools.update(originals)

    def _run(self, batch: Batch, due: Sequence[Phase], share: float) -> tuple[list[str], Tensor, Tensor]:
        with self._streams.active() if self._streams else nullcontext():
            losses, non_finite = self.trainer.run(batch, due, share)
        return list(losses), torch.stack(list(losses.values())), non_finite

    def _find_obstacle(self) -> str:
        system = self.trainer.system
        if not system.phases:
            return "its system has no phases"
        if unplanned := [name for name, pool in system.pools.items() if not isinstance(pool, PlannedPool)]:
            return f"the image pool {unplanned[0]} makes its decisions when it is called"
        if observing := [name for name, net in system.networks.items() if isinstance(net, ObservingDiscriminator)]:
            return f"{observing[0]} adapts to its logits"
        if slow := [name for name, optimizer in self.trainer.optimizers.items() if not can_skip_on_device(optimizer)]:
            return f"the optimizer of {slow[0]} has no fused form"
        return ""

    def _warn(self) -> None:
        if self._warns:
            warnings.warn(f"training.capture: the step runs without a graph: {self.problem}", stacklevel=3)

    def _move_learning_rates_to_device(self) -> None:
        """A learning rate that is a Python number would be a constant of the graph."""
        for optimizer in self.trainer.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = torch.as_tensor(group["lr"], dtype=torch.float32, device=self.trainer.device)
                if "capturable" in group:
                    group["capturable"] = True


class _PoolWrapper(Generic[Pool]):
    def __init__(self, pool: Pool) -> None:
        self.pool = pool

    def state_dict(self) -> dict[str, Tensor]:
        return self.pool.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.pool.load_state_dict(state)


class _CountingPool(_PoolWrapper[ImagePool]):
    """Records the number of fakes of each call."""

    def __init__(self, pool: ImagePool) -> None:
        super().__init__(pool)
        self.counts: list[int] = []

    def __call__(self, fakes: Tensor) -> Tensor:
        self.counts.append(len(fakes))
        return self.pool(fakes)


class _PlannedPool(_PoolWrapper[PlannedPool]):
    """Follows decisions that were made before and written to where the graph reads them."""

    def __init__(self, pool: PlannedPool, counts: Sequence[int], device: torch.device) -> None:
        super().__init__(pool)
        self.counts = counts
        self.decisions = [pool.decide(count).to(device) for count in counts]
        self.called = 0

    def __call__(self, fakes: Tensor) -> Tensor:
        if not self.decisions:
            raise RuntimeError("an image pool is called that was not called before")
        decisions = self.decisions[self.called % len(self.decisions)]
        self.called += 1
        return self.pool.exchange(fakes, decisions)

    def write_decisions(self) -> None:
        """Decide for the next replay; the first replay uses the initial decisions."""
        for target, count in zip(self.decisions, self.counts, strict=True):
            decisions = self.pool.decide(count)
            # From pinned memory, so that the host does not wait.
            target.copy_(decisions.pin_memory() if target.is_cuda else decisions, non_blocking=True)


@dataclass
class _Graph:
    """A captured step with its input and output tensors."""

    run: Callable[[], None]
    batch: dict[str, Tensor]
    pools: list[_PlannedPool]
    names: list[str]
    losses: Tensor
    phases: list[str]
    non_finite: Tensor

    is_new: bool = True

    def replay(self, batch: Batch) -> StepResult:
        if not self.is_new:  # the first replay uses the inputs of the capture
            for domain, images in self.batch.items():
                images.copy_(batch[domain], non_blocking=True)
            for pool in self.pools:
                pool.write_decisions()
        self.is_new = False
        self.run()
        losses = dict(zip(self.names, self.losses.clone().unbind(), strict=True))
        return StepResult(losses, self.phases, self.non_finite)


def _copy(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: tensor.clone() for key, tensor in state.items()}


class _HostRandomState:
    """The state of the host's global random generators."""

    def __init__(self) -> None:
        self._python, self._numpy, self._torch = random.getstate(), np.random.get_state(), torch.get_rng_state()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _HostRandomState) and self._key() == other._key()

    __hash__ = None  # type: ignore[assignment]

    def restore(self) -> None:
        """Set the generators to this state."""
        random.setstate(self._python)
        np.random.set_state(self._numpy)
        torch.set_rng_state(self._torch)

    def _key(self) -> tuple[object, ...]:
        numpy: Any = self._numpy
        return self._python, numpy[1].tobytes(), numpy[2:], self._torch.numpy().tobytes()

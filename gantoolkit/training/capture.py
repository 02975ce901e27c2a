"""A training step as one CUDA graph: recorded once, then replayed without a host that launches kernel after kernel."""

import random
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from gantoolkit.errors import first_line
from gantoolkit.plugins import Batch, ImagePool, ObservingDiscriminator, Phase, PlannedPool
from gantoolkit.training.trainer import StepResult, Trainer, can_skip_on_device

__all__ = ["CapturedStep", "GraphRecorder"]

Made = TypeVar("Made")
Pool = TypeVar("Pool", bound=ImagePool)

_WARM_UP = 3
"""Steps before recording: algorithms are chosen, moments and pools allocated."""

_MOST_GRAPHS = 8
"""Kinds of steps that are recorded, by their due phases and the sizes of their batches."""


class GraphRecorder:
    """Records what a function does on the device; the one place that speaks with CUDA's graphs."""

    def __init__(self) -> None:
        self._memory: Any = None

    def warm_up(self, function: Callable[[], Made]) -> Made:
        """Call `function` off the default stream: what autograd has begun there cannot be recorded elsewhere."""
        stream, current = torch.cuda.Stream(), torch.cuda.current_stream()
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            made = function()
        current.wait_stream(stream)
        return made

    def forget(self) -> None:
        """No graph is left: the next one has memory of its own."""
        self._memory = None

    def record(self, function: Callable[[], Made]) -> tuple[Callable[[], None], Made]:
        """How to do what `function` does once more, and what it returned: tensors that each replay fills anew.

        Raises:
            RuntimeError: When it waits for the device, or does something else that a graph cannot.
        """
        graph = torch.cuda.CUDAGraph()
        # Threads that load images may speak with CUDA meanwhile.
        with torch.cuda.graph(graph, pool=self._memory, capture_error_mode="thread_local"):
            made = function()
        self._memory = graph.pool()  # graphs are replayed one after the other, so that they can share it
        return graph.replay, made


class CapturedStep:
    """Steps of a trainer that are replayed where that can be done; else, after one warning, they are run as ever.

    A block that draws on the host, or that looks at values of the device, would do in every replay what it did when the step
    was recorded. The first is noticed by the state of the host's global generators, the second is refused by CUDA.

    Args:
        trainer: Its `step` is what is done.
        recorder: Makes the graphs.
    """

    def __init__(self, trainer: Trainer, recorder: GraphRecorder) -> None:
        self.trainer = trainer
        self.recorder = recorder
        self.problem = self._foresee_problem()
        self._graphs: dict[object, _Graph] = {}
        self._calls: dict[object, list[dict[str, list[int]]]] = {}
        self._restored = trainer.restored
        if self.problem:
            self._warn()
        else:
            self._move_rates_to_the_device()

    def __call__(self, batch: Batch, number: int = 0, share: float = 1.0) -> StepResult:
        """What `Trainer.step` does."""
        if self.problem:
            return self.trainer.step(batch, number, share)
        if self._restored != self.trainer.restored:  # moments and pools lie elsewhere now
            self._graphs.clear()
            self._calls.clear()
            self.recorder.forget()
            self._restored = self.trainer.restored
            self._move_rates_to_the_device()
        due = self.trainer.due(number)
        kind = (*(phase.name for phase in due), *((domain, images.shape) for domain, images in batch.items()))
        if kind in self._graphs:
            return self._graphs[kind].replay(self.trainer.to_memory_format(batch))
        if len(self._graphs) == _MOST_GRAPHS:
            return self.trainer.step(batch, number)
        calls = self._calls.setdefault(kind, [])
        if len(calls) < _WARM_UP:
            watched = {name: _Watched(pool) for name, pool in self.trainer.system.pools.items()}
            with self._replace_pools(watched):
                result = self.recorder.warm_up(lambda: self.trainer.step(batch, number))
            calls.append({name: pool.counts for name, pool in watched.items()})
            return result
        arranged = self.trainer.to_memory_format(batch)
        graph = self._record(arranged, due, calls[-1])
        if graph is None:
            return self.trainer.step(batch, number)
        self._graphs[kind] = graph
        return graph.replay(arranged)

    def _record(self, batch: Batch, due: Sequence[Phase], calls: Mapping[str, Sequence[int]]) -> "_Graph | None":
        shown = {domain: images.clone() for domain, images in batch.items()}
        before = {name: _copy(pool.state_dict()) for name, pool in self.trainer.system.pools.items()}
        planned = {
            name: _Planned(pool, calls[name], self.trainer.device)
            for name, pool in self.trainer.system.pools.items()
            if isinstance(pool, PlannedPool)
        }
        drawn = _host_state()
        try:
            with self._replace_pools(planned):
                run, (names, losses, non_finite) = self.recorder.record(lambda: self._body(shown, due))
        except RuntimeError as error:
            self.problem = f"it cannot be recorded ({first_line(error)})"
        else:
            if any(pool.called != len(pool.counts) for pool in planned.values()):
                self.problem = "an image pool is called more or less often than before"
            elif drawn == _host_state():
                phases = [phase.name for phase in due]
                return _Graph(run, shown, list(planned.values()), names, losses, phases, non_finite)
            else:
                self.problem = "one of its blocks draws random numbers on the host"
        for name, pool in self.trainer.system.pools.items():
            pool.load_state_dict(before[name])
        self._warn()
        return None

    @contextmanager
    def _replace_pools(self, others: Mapping[str, ImagePool]) -> Iterator[None]:
        pools = self.trainer.system.pools
        originals = dict(pools)
        pools.update(others)
        try:
            yield
        finally:
            pools.update(originals)

    def _body(self, batch: Batch, due: Sequence[Phase]) -> tuple[list[str], Tensor, Tensor]:
        losses, non_finite = self.trainer.run(batch, due)
        return list(losses), torch.stack(list(losses.values())), non_finite

    def _foresee_problem(self) -> str:
        system = self.trainer.system
        if self.trainer.process_group.world_size > 1:
            return "several processes share the run"
        if unplanned := [name for name, pool in system.pools.items() if not isinstance(pool, PlannedPool)]:
            return f"the image pool {unplanned[0]} decides while it is called"
        if observing := [name for name, net in system.networks.items() if isinstance(net, ObservingDiscriminator)]:
            return f"{observing[0]} follows its logits"
        if slow := [name for name, optimizer in self.trainer.optimizers.items() if not can_skip_on_device(optimizer)]:
            return f"the optimizer of {slow[0]} has no fused form"
        return ""

    def _warn(self) -> None:
        warnings.warn(f"training.capture: the step is run without a graph: {self.problem}", stacklevel=3)

    def _move_rates_to_the_device(self) -> None:
        """A rate that is a number would be a constant of the graph."""
        for optimizer in self.trainer.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = torch.as_tensor(group["lr"], dtype=torch.float32, device=self.trainer.device)
                if "capturable" in group:
                    group["capturable"] = True


class _Stand(Generic[Pool]):
    """Stands in for a pool."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool

    def state_dict(self) -> dict[str, Tensor]:
        return self.pool.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.pool.load_state_dict(state)


class _Watched(_Stand[ImagePool]):
    """Notes how many fakes each call has."""

    def __init__(self, pool: ImagePool) -> None:
        super().__init__(pool)
        self.counts: list[int] = []

    def __call__(self, fakes: Tensor) -> Tensor:
        self.counts.append(len(fakes))
        return self.pool(fakes)


class _Planned(_Stand[PlannedPool]):
    """Does what was decided before, and written to where a graph reads it."""

    def __init__(self, pool: PlannedPool, counts: Sequence[int], device: torch.device) -> None:
        super().__init__(pool)
        self.counts = counts
        self.read = [pool.decide(count).to(device) for count in counts]
        self.called = 0

    def __call__(self, fakes: Tensor) -> Tensor:
        if not self.read:
            raise RuntimeError("an image pool is called that was not called before")
        read = self.read[self.called % len(self.read)]
        self.called += 1
        return self.pool.exchange(fakes, read)

    def write_decisions(self) -> None:
        """Draw what the next replay does; the first does what was drawn here in the beginning."""
        for place, count in zip(self.read, self.counts, strict=True):
            drawn = self.pool.decide(count)
            # From pinned memory, so that nothing waits.
            place.copy_(drawn.pin_memory() if place.is_cuda else drawn, non_blocking=True)


@dataclass
class _Graph:
    """A recorded step: where it reads from, and where it writes to."""

    run: Callable[[], None]
    batch: dict[str, Tensor]
    pools: list[_Planned]
    names: list[str]
    losses: Tensor
    phases: list[str]
    non_finite: Tensor

    is_new: bool = True

    def replay(self, batch: Batch) -> StepResult:
        if not self.is_new:  # what it was recorded with is there
            for domain, images in self.batch.items():
                images.copy_(batch[domain], non_blocking=True)
            for pool in self.pools:
                pool.write_decisions()
        self.is_new = False
        self.run()
        return StepResult(
            dict(zip(self.names, self.losses.clone().unbind(), strict=True)), self.phases, self.non_finite
        )


def _copy(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: tensor.clone() for key, tensor in state.items()}


def _host_state() -> tuple[object, ...]:
    """Where the host's random generators stand."""
    numpy: Any = np.random.get_state()
    return random.getstate(), numpy[1].tobytes(), numpy[2:], torch.get_rng_state().numpy().tobytes()

"""A training step as one CUDA graph: recorded once, then replayed without a host that launches kernel after kernel."""

import random
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from gantoolkit.plugins import Batch, ImagePool, ObservingDiscriminator, Phase, PlannedPool
from gantoolkit.training.trainer import StepResult, Trainer, can_be_told

__all__ = ["CapturedStep", "GraphRecorder"]

Made = TypeVar("Made")

_WARM_UP = 3
"""Steps before recording: algorithms are chosen, moments and pools allocated."""

_MOST_GRAPHS = 8
"""Kinds of steps that are recorded, by their due phases and the sizes of their batches."""


class GraphRecorder:
    """Records what a function does on the device; the one place that speaks with CUDA's graphs."""

    def __init__(self) -> None:
        self._memory: tuple[int, int] | None = None

    def warm_up(self, function: Callable[[], Made]) -> Made:
        """Call `function` off the default stream: what autograd has begun there cannot be recorded elsewhere."""
        stream, current = torch.cuda.Stream(), torch.cuda.current_stream()
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            made = function()
        current.wait_stream(stream)
        return made

    def record(self, function: Callable[[], Made]) -> tuple[Callable[[], None], Made]:
        """How to do what `function` does once more, and what it returned: tensors that each replay fills anew.

        Raises:
            RuntimeError: When it waits for the device, or does something else that a graph cannot.
        """
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._memory):
            made = function()
        self._memory = graph.pool()  # graphs are replayed one after the other, so that they can share it
        return graph.replay, made


class CapturedStep:
    """Steps of a trainer that are replayed where that can be done; else, after one warning, they are run as ever.

    A block that draws on the host, or that looks at values of the device, would do in every replay what it did when the step
    was recorded. The first is noticed by the state of the host's generators, the second is refused by CUDA.

    Args:
        trainer: Its `step` is what is done.
        recorder: Makes the graphs.
    """

    def __init__(self, trainer: Trainer, recorder: GraphRecorder) -> None:
        self.trainer = trainer
        self.recorder = recorder
        self.problem = self._foresee_problem()
        self._graphs: dict[object, _Graph] = {}
        self._seen: Counter[object] = Counter()
        self._restored = trainer.restored
        if self.problem:
            self._warn()
        else:
            self._move_rates_to_the_device()

    def __call__(self, batch: Batch, number: int = 0) -> StepResult:
        """What `Trainer.step` does."""
        due = self.trainer.due(number)
        kind = (*(phase.name for phase in due), *((domain, images.shape) for domain, images in batch.items()))
        if self._restored != self.trainer.restored:  # moments and pools lie elsewhere now
            self._graphs.clear()
            self._seen.clear()
            self._restored = self.trainer.restored
            self._move_rates_to_the_device()
        self._seen[kind] += 1
        is_recorded = kind in self._graphs
        if self.problem or (not is_recorded and len(self._graphs) == _MOST_GRAPHS):
            return self.trainer.step(batch, number)
        if self._seen[kind] <= _WARM_UP:
            return self.recorder.warm_up(lambda: self.trainer.step(batch, number))
        arranged = self.trainer.arrange(batch)
        if not is_recorded:
            graph = self._record(arranged, due)
            if graph is None:
                return self.trainer.step(batch, number)
            self._graphs[kind] = graph
        return self._graphs[kind].replay(arranged)

    def _record(self, batch: Batch, due: Sequence[Phase]) -> "_Graph | None":
        pools = self.trainer.system.pools
        before = {name: {key: kept.clone() for key, kept in pool.state_dict().items()} for name, pool in pools.items()}
        planned = {name: _Planned(pool) for name, pool in pools.items() if isinstance(pool, PlannedPool)}
        shown = {domain: images.clone() for domain, images in batch.items()}
        drawn = _host_state()
        originals = dict(pools)
        pools.update(planned)
        try:
            replay, (names, losses, broken) = self.recorder.record(lambda: self._body(shown, due))
        except RuntimeError as error:
            self.problem = f"it cannot be recorded ({str(error).partition(chr(10))[0]})"
        else:
            if drawn == _host_state():
                phases = [phase.name for phase in due]
                return _Graph(replay, shown, list(planned.values()), names, losses, phases, broken)
            self.problem = "one of its blocks draws random numbers on the host"
        finally:
            pools.update(originals)
        for name, pool in pools.items():
            pool.load_state_dict(before[name])
        self._warn()
        return None

    def _body(self, batch: Batch, due: Sequence[Phase]) -> tuple[list[str], Tensor, Tensor]:
        losses, broken = self.trainer.run(batch, due)
        return list(losses), torch.stack(list(losses.values())), broken

    def _foresee_problem(self) -> str:
        system = self.trainer.system
        if unplanned := [name for name, pool in system.pools.items() if not isinstance(pool, PlannedPool)]:
            return f"the image pool {unplanned[0]} decides while it is called"
        if observing := [name for name, net in system.networks.items() if isinstance(net, ObservingDiscriminator)]:
            return f"{observing[0]} follows its logits"
        if slow := [name for name, optimizer in self.trainer.optimizers.items() if not can_be_told(optimizer)]:
            return f"the optimiser of {slow[0]} has no fused form"
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


class _Planned:
    """Stands in for a pool while a step is recorded, and keeps what its next decisions are to be written into."""

    def __init__(self, pool: ImagePool) -> None:
        assert isinstance(pool, PlannedPool)
        self.pool = pool
        self.calls: list[tuple[Tensor, Tensor | None]] = []

    def __call__(self, fakes: Tensor) -> Tensor:
        decisions = self.pool.decide(len(fakes))
        read = torch.empty(decisions.shape, dtype=decisions.dtype, device=fakes.device)
        self.calls.append((read, decisions))
        return self.pool.exchange(fakes, read)

    def write_decisions(self) -> None:
        """Write the decisions that were drawn while recording, or new ones, to where the graph reads them."""
        for place, (read, drawn) in enumerate(self.calls):
            decisions = drawn if drawn is not None else self.pool.decide(read.shape[-1])
            read.copy_(decisions.pin_memory() if read.is_cuda else decisions, non_blocking=True)
            self.calls[place] = (read, None)


@dataclass
class _Graph:
    """A recorded step: where it reads from, and where it writes to."""

    run: Callable[[], None]
    batch: dict[str, Tensor]
    pools: list[_Planned]
    names: list[str]
    losses: Tensor
    phases: list[str]
    broken: Tensor

    def replay(self, batch: Batch) -> StepResult:
        for domain, images in self.batch.items():
            images.copy_(batch[domain], non_blocking=True)
        for pool in self.pools:
            pool.write_decisions()
        self.run()
        return StepResult(dict(zip(self.names, self.losses.clone().unbind(), strict=True)), self.phases, self.broken)


def _host_state() -> tuple[object, ...]:
    """Where the host's random generators stand."""
    name, keys, *rest = np.random.get_state()
    return random.getstate(), name, keys.tobytes(), *rest, torch.get_rng_state().numpy().tobytes()

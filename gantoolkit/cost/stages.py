"""What a training step is doing at the moment, under the same names for its work, its memory and its time."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, cast

from torch import Tensor

from gantoolkit.plugins import Batch, Phase, Shared, System
from gantoolkit.training import Trainer

__all__ = ["follow_stages", "phase_of"]


@contextmanager
def follow_stages(trainer: Trainer, tell: Callable[[str], None]) -> Iterator[None]:
    """Call `tell` with a stage's name whenever a step of the trainer comes to it; what the step does stays the same.

    First comes `forward`, then for each phase, `G` for instance, `G losses`, `G backward` and `G optimizer`.
    """
    system = trainer.system
    with ExitStack() as stack:
        for name, optimizer in trainer.optimizers.items():
            hook = optimizer.register_step_pre_hook(lambda *_, name=name: tell(f"{name} optimizer"))
            stack.callback(hook.remove)
        trainer.system = cast(System, _Followed(system, tell))  # what it does not have, it passes on
        try:
            yield
        finally:
            trainer.system = system


def phase_of(stage: str) -> str:
    """The name of the phase that a stage belongs to; none for `forward`."""
    return stage.rpartition(" ")[0]


class _Followed:
    """A system that says when a step calls it."""

    def __init__(self, system: System, tell: Callable[[str], None]) -> None:
        self._system = system
        self._tell = tell

    def __getattr__(self, name: str) -> Any:
        return getattr(self._system, name)

    @property
    def phases(self) -> list[Phase]:
        return [replace(phase, losses=partial(self._losses, phase)) for phase in self._system.phases]

    def forward(self, batch: Batch) -> Shared:
        self._tell("forward")
        return self._system.forward(batch)

    def _losses(self, phase: Phase, batch: Batch, shared: Shared) -> dict[str, Tensor]:
        self._tell(f"{phase.name} losses")
        losses = phase.losses(batch, shared)
        self._tell(f"{phase.name} backward")
        return losses

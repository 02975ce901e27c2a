"""The trainer: runs the phases of any system, and knows nothing else about it."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gantoolkit.plugins import Batch, ObservingScheduler, Phase, Scheduler, System

__all__ = ["StepResult", "Trainer"]


@dataclass(frozen=True)
class StepResult:
    """What one step came to.

    Args:
        losses: Weighted terms by logged name (`G/cycle_A`), and each phase's sum (`G/total`); scalars without gradient.
        skipped: The phase whose loss or gradient was not finite; neither it nor the phases after it changed a weight.
    """

    losses: dict[str, Tensor]
    skipped: str | None = None


class Trainer:
    """Optimises a system's phases, one optimiser each, at a rate that follows a schedule.

    Args:
        system: Its networks are trained in place.
        optimizer: Makes an optimiser from parameters.
        scheduler: Factor on all rates, by epoch.
        epochs: Length of the run.
    """

    def __init__(
        self,
        system: System,
        *,
        optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
        scheduler: Scheduler,
        epochs: int,
    ) -> None:
        self.system = system
        self.scheduler = scheduler
        self.epochs = epochs
        # What is frozen when a network is made stays so: a pretrained part, for instance.
        self._learning = {
            name: [parameter for parameter in network.parameters() if parameter.requires_grad]
            for name, network in system.networks.items()
        }
        self.optimizers = {phase.name: optimizer(self._parameters(phase)) for phase in system.phases}
        self._full_rates = {
            name: [group["lr"] for group in made.param_groups] for name, made in self.optimizers.items()
        }

    def begin_epoch(self, epoch: int) -> None:
        """Set every optimiser's rate for `epoch`, counted from 0."""
        factor = self.scheduler.multiplier(epoch, self.epochs)
        for name, optimizer in self.optimizers.items():
            for group, rate in zip(optimizer.param_groups, self._full_rates[name], strict=True):
                group["lr"] = rate * factor

    def end_epoch(self, means: Mapping[str, float]) -> None:
        """Tell the scheduler, if it wants to know, the means of the epoch's losses by logged name."""
        if isinstance(self.scheduler, ObservingScheduler):
            self.scheduler.observe(means)

    @property
    def rates(self) -> dict[str, float]:
        """The current learning rate of each phase."""
        return {name: optimizer.param_groups[0]["lr"] for name, optimizer in self.optimizers.items()}

    def step(self, batch: Batch, number: int = 0) -> StepResult:
        """Run every phase that is due in step `number`: losses, gradients of what it trains, one optimiser step."""
        losses: dict[str, Tensor] = {}
        self._train_only(self.system.networks)
        shared = self.system.forward(batch)
        for phase in self.system.phases:
            if number % phase.every:
                continue
            self._train_only(phase.trains)
            optimizer = self.optimizers[phase.name]
            optimizer.zero_grad()
            terms = phase.losses(batch, shared)
            total = torch.stack(list(terms.values())).sum()
            losses |= {f"{phase.name}/{name}": term.detach() for name, term in terms.items()}
            losses[f"{phase.name}/total"] = total.detach()
            total.backward()
            if not _finite(total, optimizer):
                optimizer.zero_grad()
                return StepResult(losses, skipped=phase.name)
            optimizer.step()
        return StepResult(losses)

    def state_dict(self) -> dict[str, Tensor]:
        """All tensors that the next step depends on: networks, optimisers and pools, by a path."""
        state: dict[str, Tensor] = {}
        for name, network in self.system.networks.items():
            state |= {f"network/{name}/{key}": tensor for key, tensor in network.state_dict().items()}
        for name, optimizer in self.optimizers.items():
            for place, values in optimizer.state_dict()["state"].items():
                tensors = {key: value for key, value in values.items() if value is not None}
                state |= {f"optimizer/{name}/{place}/{key}": torch.as_tensor(tensors[key]) for key in tensors}
        for name, pool in self.system.pools.items():
            state |= {f"pool/{name}/{key}": tensor for key, tensor in pool.state_dict().items()}
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a `state_dict`.

        Raises:
            RuntimeError: When it belongs to other networks.
        """
        for name, network in self.system.networks.items():
            network.load_state_dict(_below(state, f"network/{name}/"))
        for name, optimizer in self.optimizers.items():
            values: dict[int, dict[str, Tensor]] = {}
            for key, tensor in _below(state, f"optimizer/{name}/").items():
                place, _, slot = key.partition("/")
                values.setdefault(int(place), {})[slot] = tensor
            optimizer.load_state_dict({**optimizer.state_dict(), "state": values})
        for name, pool in self.system.pools.items():
            pool.load_state_dict(
                {key: tensor.to(self._device) for key, tensor in _below(state, f"pool/{name}/").items()}
            )

    @property
    def _device(self) -> torch.device:
        return next(tensor.device for network in self.system.networks.values() for tensor in network.parameters())

    def _parameters(self, phase: Phase) -> list[nn.Parameter]:
        # Each once, also where two networks share a layer.
        return list(dict.fromkeys(parameter for name in phase.trains for parameter in self._learning[name]))

    def _train_only(self, names: Iterable[str]) -> None:
        # Frozen first: a layer that a trained network shares with a frozen one learns.
        trained = set(names)
        for name in sorted(self._learning, key=trained.__contains__):
            for parameter in self._learning[name]:
                parameter.requires_grad_(name in trained)


def _finite(total: Tensor, optimizer: torch.optim.Optimizer) -> bool:
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    norm = nn.utils.get_total_norm(gradients)
    return bool(torch.isfinite(total + norm))


def _below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}

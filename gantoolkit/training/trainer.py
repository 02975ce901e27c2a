"""The trainer: runs the phases of any system, and knows nothing else about it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gantoolkit.plugins import Batch, ObservingScheduler, Phase, Scheduler, System
from gantoolkit.runtime.precision import Precision
from gantoolkit.training.distributed import SINGLE_PROCESS, ProcessGroup

__all__ = ["StepResult", "Trainer", "can_skip_on_device"]

_FIRST_SCALE = 2.0**12
"""Of losses in float16; it halves with every overflow, and doubles after two thousand steps without."""


class StepResult:
    """What one step came to.

    Args:
        losses: Weighted terms by logged name (`G/cycle_A`), and each phase's sum (`G/total`); scalars without gradient.
        phases: Names of the phases that were run.
        non_finite: (phases,) is 1 where a phase, or one before it, was not finite.
    """

    def __init__(self, losses: dict[str, Tensor], phases: Sequence[str], non_finite: Tensor) -> None:
        self.losses = losses
        self._phases = phases
        self._copied: torch.cuda.Event | None = None
        # Without memory there is nothing to read.
        self._non_finite = non_finite if non_finite.is_meta else non_finite.to("cpu", non_blocking=non_finite.is_cuda)
        if non_finite.is_cuda:
            self._copied = torch.cuda.Event()
            self._copied.record()

    @property
    def skipped(self) -> str | None:
        """The phase whose loss or gradient was not finite; neither it nor the phases after it changed a weight.

        Waits for this step, not for those that have been begun since.
        """
        if self._copied is not None:
            self._copied.synchronize()
        found = self._non_finite.tolist()
        return self._phases[found.index(1)] if 1 in found else None


class Trainer:
    """Optimizes a system's phases, one optimizer each, at a rate that follows a schedule.

    On CUDA a step never waits for the device, as long as its optimizers can be told there that they are not to step:
    those of `torch.optim` that are fused.

    Args:
        system: Its networks are trained in place.
        optimizer: Makes an optimizer from parameters.
        scheduler: Factor on all rates, by epoch.
        epochs: Length of the run.
        precision: What the networks compute in. For float16, whose small numbers are coarse, each phase's loss is scaled up,
            by a factor that follows its gradients, and these are scaled down again.
        memory_format: In which order a batch's images lie in memory.
        process_group: Those that share the run; each has the first one's weights to begin with.
    """

    def __init__(
        self,
        system: System,
        *,
        optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
        scheduler: Scheduler,
        epochs: int,
        precision: Precision = "fp32",
        memory_format: torch.memory_format = torch.contiguous_format,
        process_group: ProcessGroup = SINGLE_PROCESS,
    ) -> None:
        self.system = system
        self.scheduler = scheduler
        self.epochs = epochs
        self.precision: Precision = precision
        self.memory_format = memory_format
        self.process_group = process_group
        # What is frozen when a network is made stays so: a pretrained part, for instance.
        self._learning = {
            name: [parameter for parameter in network.parameters() if parameter.requires_grad]
            for name, network in system.networks.items()
        }
        self.optimizers = {phase.name: optimizer(self._parameters(phase)) for phase in system.phases}
        self._full_rates = {
            name: [float(group["lr"]) for group in made.param_groups] for name, made in self.optimizers.items()
        }
        self.rates = {name: rates[0] for name, rates in self._full_rates.items()}
        """The current learning rate of each phase."""
        scaled = self.optimizers if precision == "fp16" else ()
        self.scalers = {name: torch.amp.GradScaler(self.device.type, init_scale=_FIRST_SCALE) for name in scaled}
        self.is_asynchronous = self.device.type == "cuda"
        """Whether what is not finite is found, and left out, on the device; else the host looks at every phase."""
        self._broadcast(parameters=True)
        self.restored = 0
        """How often a state has been loaded; tensors that a graph was made of are not in use after that."""

    def begin_epoch(self, epoch: int) -> None:
        """Set every optimizer's rate for `epoch`, counted from 0."""
        factor = self.scheduler.multiplier(epoch, self.epochs)
        for name, optimizer in self.optimizers.items():
            for group, rate in zip(optimizer.param_groups, self._full_rates[name], strict=True):
                if isinstance(group["lr"], Tensor):
                    group["lr"].fill_(rate * factor)
                else:
                    group["lr"] = rate * factor
            self.rates[name] = self._full_rates[name][0] * factor

    def end_epoch(self, means: Mapping[str, float]) -> None:
        """Tell the scheduler, if it wants to know, the means of the epoch's losses by logged name."""
        if isinstance(self.scheduler, ObservingScheduler):
            self.scheduler.observe(means)

    def step(self, batch: Batch, number: int = 0, share: float = 1.0) -> StepResult:
        """Run every phase that is due in step `number`: losses, gradients of what it trains, one optimizer step.

        Args:
            batch: This process's images.
            number: Of the step.
            share: The part of the step's images, in all processes, that these are.
        """
        due = self.due(number)
        losses, non_finite = self.run(self.to_memory_format(batch), due, share)
        return StepResult(losses, [phase.name for phase in due], non_finite)

    def due(self, number: int) -> list[Phase]:
        """The phases of step `number`."""
        return [phase for phase in self.system.phases if number % phase.every == 0]

    def to_memory_format(self, batch: Batch) -> dict[str, Tensor]:
        """The batch as the networks take it soonest."""
        return {domain: images.contiguous(memory_format=self.memory_format) for domain, images in batch.items()}

    def run(self, batch: Batch, phases: Sequence[Phase], share: float = 1.0) -> tuple[dict[str, Tensor], Tensor]:
        """Run phases; on CUDA without waiting for it, so that a graph can be made of it.

        Returns:
            Losses, and for each phase whether it, or one before it, was not finite, as in `StepResult`.
        """
        losses: dict[str, Tensor] = {}
        flags: list[Tensor] = []
        before = [(buffer, buffer.clone()) for buffer in self._buffers()]
        self._train_only(self.system.networks)
        shared = self.system.forward(batch)
        for phase in phases:
            self._train_only(phase.trains)
            optimizer = self.optimizers[phase.name]
            optimizer.zero_grad()
            terms = phase.losses(batch, shared)
            total = torch.stack(list(terms.values())).sum()
            losses |= {f"{phase.name}/{name}": term.detach() for name, term in terms.items()}
            losses[f"{phase.name}/total"] = total.detach()
            non_finite = _is_non_finite(self._backward(phase, total, share), optimizer)
            flags.append(torch.maximum(non_finite, flags[-1]) if flags else non_finite)
            if self.is_asynchronous and can_skip_on_device(optimizer):
                _step_unless_non_finite(flags[-1], optimizer)
            elif non_finite > 0:
                optimizer.zero_grad()
                flags += flags[-1:] * (len(phases) - len(flags))
                break
            else:
                optimizer.step()
        if flags:
            for buffer, earlier in before:  # a batch that is not finite has left its marks in running means
                buffer.copy_(torch.where(flags[-1] > 0, earlier, buffer))
        self._broadcast()
        return self._all_reduce_losses(losses, share), torch.stack(flags) if flags else torch.zeros(0)

    def state_dict(self) -> dict[str, Tensor]:
        """All tensors that the next step depends on: networks, optimizers and pools, by a path."""
        state: dict[str, Tensor] = {}
        for name, network in self.system.networks.items():
            state |= {f"network/{name}/{key}": tensor for key, tensor in network.state_dict().items()}
        for name, optimizer in self.optimizers.items():
            for place, values in optimizer.state_dict()["state"].items():
                tensors = {key: value for key, value in values.items() if value is not None}
                state |= {f"optimizer/{name}/{place}/{key}": torch.as_tensor(tensors[key]) for key in tensors}
        for name, scaler in self.scalers.items():
            kept = scaler.state_dict()
            state[f"scaler/{name}"] = torch.tensor([kept["scale"], kept["_growth_tracker"]], dtype=torch.float64)
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
            _match_memory_format(optimizer)
        for name, scaler in self.scalers.items():
            scale, steps = state[f"scaler/{name}"].tolist()
            scaler.load_state_dict({**scaler.state_dict(), "scale": scale, "_growth_tracker": int(steps)})
        for name, pool in self.system.pools.items():
            pool.load_state_dict(
                {key: tensor.to(self.device) for key, tensor in _below(state, f"pool/{name}/").items()}
            )
        self.restored += 1

    @property
    def device(self) -> torch.device:
        """Where the networks are; the CPU for a system that has none."""
        parameters = (tensor for network in self.system.networks.values() for tensor in network.parameters())
        return next((parameter.device for parameter in parameters), torch.device("cpu"))

    def _backward(self, phase: Phase, total: Tensor, share: float) -> Tensor:
        """Gradients of a phase's loss, which is a mean over images, for the images of all processes; that loss."""
        scaler = self.scalers.get(phase.name)
        if self.process_group.world_size > 1:
            total = total * share
        (total if scaler is None else scaler.scale(total)).backward()
        total = total.detach()
        if self.process_group.world_size > 1:
            # Of all that the phase trains, so that the sums fit together also where one process did not use a parameter.
            # And the loss with them, so that all find it finite or none.
            gradients = [_gradient(parameter) for parameter in self._parameters(phase)]
            self.process_group.all_reduce([*gradients, total])
        if scaler is not None:
            scaler.unscale_(self.optimizers[phase.name])
            scaler.update()
        return total

    def _all_reduce_losses(self, losses: dict[str, Tensor], share: float) -> dict[str, Tensor]:
        """The losses of the images of all processes."""
        if self.process_group.world_size == 1 or not losses:
            return losses
        values = torch.stack(list(losses.values())) * share
        self.process_group.all_reduce([values])
        return dict(zip(losses, values.unbind(), strict=True))

    def _broadcast(self, *, parameters: bool = False) -> None:
        """Make buffers, such as running means, the first process's; weights stay equal, if they were once."""
        if self.process_group.world_size == 1:
            return
        tensors = self._buffers()
        if parameters:
            tensors += [weight for network in self.system.networks.values() for weight in network.parameters()]
        self.process_group.broadcast(list(dict.fromkeys(tensors)))

    def _buffers(self) -> list[Tensor]:
        return [buffer for network in self.system.networks.values() for buffer in network.buffers()]

    def _parameters(self, phase: Phase) -> list[nn.Parameter]:
        # Each once, also where two networks share a layer.
        return list(dict.fromkeys(parameter for name in phase.trains for parameter in self._learning[name]))

    def _train_only(self, names: Iterable[str]) -> None:
        # Frozen first: a layer that a trained network shares with a frozen one learns.
        trained = set(names)
        for name in sorted(self._learning, key=trained.__contains__):
            for parameter in self._learning[name]:
                parameter.requires_grad_(name in trained)


def can_skip_on_device(optimizer: torch.optim.Optimizer) -> bool:
    """Whether a flag on the device can keep an optimizer from stepping: those that are fused read one."""
    return getattr(optimizer, "_step_supports_amp_scaling", False)


def _step_unless_non_finite(non_finite: Tensor, optimizer: Any) -> None:
    # What GradScaler does with such an optimizer; here the flag is ours, and nothing is to be scaled.
    optimizer.grad_scale, optimizer.found_inf = None, non_finite
    optimizer.step()
    del optimizer.grad_scale, optimizer.found_inf


def _is_non_finite(total: Tensor, optimizer: torch.optim.Optimizer) -> Tensor:
    """1 if the loss or a gradient is not finite, else 0; float32, as optimizers want their flag."""
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    norm = nn.utils.get_total_norm(gradients)
    return 1 - torch.isfinite(total.detach() + norm).float()


def _match_memory_format(optimizer: torch.optim.Optimizer) -> None:
    """Lay loaded moments out in memory as their parameters are: fused optimizers go through both in one order."""
    for parameter, values in optimizer.state.items():
        for slot, tensor in values.items():
            if isinstance(tensor, Tensor) and tensor.shape == parameter.shape:
                values[slot] = torch.empty_like(parameter, dtype=tensor.dtype).copy_(tensor)


def _gradient(parameter: nn.Parameter) -> Tensor:
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad


def _below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}

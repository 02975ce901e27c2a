"""The trainer: runs the phases of any system, and knows nothing else about it."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from gantoolkit.errors import PluginError
from gantoolkit.plugins import Batch, ObservingScheduler, Phase, Scheduler, System
from gantoolkit.runtime.precision import Precision
from gantoolkit.runtime.rounding import RoundedWeights, shared_weights
from gantoolkit.training.distributed import SINGLE_PROCESS, ProcessGroup

__all__ = ["StepResult", "Trainer", "can_skip_on_device"]

_INITIAL_SCALE = 2.0**12
"""Of losses in float16. It halves at every overflow and doubles after two thousand steps without one."""


class StepResult:
    """The result of one step.

    Args:
        losses: Weighted terms by logged name (`G/cycle_A`), and the sum of each phase (`G/total`); scalars without gradient.
        phases: The names of the phases of the step.
        non_finite: (phases,) is 1 where the loss or a gradient of a phase, or of an earlier one, was non-finite.
    """

    def __init__(self, losses: dict[str, Tensor], phases: Sequence[str], non_finite: Tensor) -> None:
        self.losses = losses
        self._phases = phases
        self._copied: torch.cuda.Event | None = None
        self._non_finite = non_finite if non_finite.is_meta else non_finite.to("cpu", non_blocking=non_finite.is_cuda)
        if non_finite.is_cuda:
            self._copied = torch.cuda.Event()
            self._copied.record(torch.cuda.current_stream(non_finite.device))

    @property
    def skipped(self) -> str | None:
        """The phase whose loss or gradient was non-finite. Neither it nor the phases after it changed a weight.

        Waits for this step on the device, but not for later ones.
        """
        if self._copied is not None:
            self._copied.synchronize()
        flags = self._non_finite.tolist()
        return self._phases[flags.index(1)] if 1 in flags else None


class Trainer:
    """Optimizes the phases of a system, each with an optimizer of its own, at learning rates that follow a schedule.

    On CUDA a step never waits for the device if its optimizers are fused: these can skip a step by a flag on the device.

    Each step runs in stages: `forward`, then for each phase, such as `G`, `G losses`, `G backward` and `G optimizer`. They are
    ranges of `torch.profiler.record_function`, and `on_stage` is called with their names.

    Args:
        system: Its networks are trained in place.
        optimizer: Makes an optimizer from parameters.
        scheduler: Factor on all learning rates, by epoch.
        epochs: Length of the run.
        precision: The precision of the networks. In float16, the loss of each phase is scaled up by a factor that follows its
            gradients, and the gradients are scaled down again.
        memory_format: The memory format of the batch.
        process_group: The processes that share the run. All start from the weights of the main process.
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
        self.on_stage: Callable[[str], object] = lambda stage: None
        """Called at the start of each stage of a step."""
        # What is frozen when a network is built stays frozen, such as a pretrained part.
        self._learning = {
            name: [parameter for parameter in network.parameters() if parameter.requires_grad]
            for name, network in system.networks.items()
        }
        self.optimizers = {phase.name: optimizer(self._parameters(phase)) for phase in system.phases}
        self._initial_learning_rates = {
            name: [float(group["lr"]) for group in optimizer.param_groups]
            for name, optimizer in self.optimizers.items()
        }
        self.learning_rates = {name: rates[0] for name, rates in self._initial_learning_rates.items()}
        """The current learning rate of each phase."""
        scaled = self.optimizers if precision == "fp16" else ()
        self.scalers = {name: torch.amp.GradScaler(self.device.type, init_scale=_INITIAL_SCALE) for name in scaled}
        self.is_asynchronous = self.device.type == "cuda"
        """Whether the all-finite check and its consequence stay on the device; otherwise the host checks every phase."""
        self._broadcast(parameters=True)
        self.restored = 0
        """How often a state was loaded. A CUDA graph that was captured before refers to tensors no longer in use."""

    def begin_epoch(self, epoch: int) -> None:
        """Set the learning rates of `epoch`, counted from 0."""
        factor = self.scheduler.multiplier(epoch, self.epochs)
        for name, optimizer in self.optimizers.items():
            for group, initial in zip(optimizer.param_groups, self._initial_learning_rates[name], strict=True):
                if isinstance(group["lr"], Tensor):
                    group["lr"].fill_(initial * factor)
                else:
                    group["lr"] = initial * factor
            self.learning_rates[name] = self._initial_learning_rates[name][0] * factor

    def end_epoch(self, means: Mapping[str, float]) -> None:
        """Pass the means of the epoch's losses, by logged name, to a scheduler that observes them."""
        if isinstance(self.scheduler, ObservingScheduler):
            self.scheduler.observe(means)

    def step(self, batch: Batch, number: int = 0, share: float = 1.0) -> StepResult:
        """Run every phase that is due in step `number`: losses, gradients of what it trains, one optimizer step.

        Args:
            batch: The images of this process.
            number: The number of the step, from 0.
            share: The share of the step's images, over all processes, that this batch holds.
        """
        due = self.due(number)
        losses, non_finite = self.run(self.to_memory_format(batch), due, share)
        return StepResult(losses, [phase.name for phase in due], non_finite)

    def due(self, number: int) -> list[Phase]:
        """The phases of step `number`."""
        return [phase for phase in self.system.phases if number % phase.every == 0]

    def to_memory_format(self, batch: Batch) -> dict[str, Tensor]:
        """The batch in the memory format of the trainer."""
        return {domain: images.contiguous(memory_format=self.memory_format) for domain, images in batch.items()}

    def run(self, batch: Batch, phases: Sequence[Phase], share: float = 1.0) -> tuple[dict[str, Tensor], Tensor]:
        """Run phases; on CUDA without waiting for the device, so that a graph can capture it.

        Returns:
            The losses, and the flags of `StepResult`.
        """
        with shared_weights() as rounded:
            return self._run(batch, phases, share, rounded)

    def _run(
        self, batch: Batch, phases: Sequence[Phase], share: float, rounded: RoundedWeights
    ) -> tuple[dict[str, Tensor], Tensor]:
        losses: dict[str, Tensor] = {}
        flags: list[Tensor] = []
        buffers = [(buffer, buffer.clone()) for buffer in self._buffers()]
        self._train_only(self.system.networks)
        with self._stage("forward"):
            shared = self.system.forward(batch)
        for phase in phases:
            self._train_only(phase.trains)
            optimizer = self.optimizers[phase.name]
            optimizer.zero_grad()
            with self._stage(f"{phase.name} losses"):
                terms = phase.losses(batch, shared)
                _refuse_reserved_name(phase, terms)
                total = torch.stack(list(terms.values())).sum()
            losses |= {f"{phase.name}/{name}": term.detach() for name, term in terms.items()}
            losses[f"{phase.name}/{_TOTAL}"] = total.detach()
            with self._stage(f"{phase.name} backward"):
                non_finite = _is_non_finite(self._backward(phase, total, share), optimizer)
            flags.append(torch.maximum(non_finite, flags[-1]) if flags else non_finite)
            with self._stage(f"{phase.name} optimizer"):
                is_skipped = self._step_optimizer(optimizer, flags[-1])
            rounded.clear()  # the weights have changed
            if is_skipped:
                flags += flags[-1:] * (len(phases) - len(flags))
                break
        if flags:
            for buffer, before in buffers:  # running statistics include the non-finite batch
                buffer.copy_(torch.where(flags[-1] > 0, before, buffer))
        self._broadcast()
        return self._all_reduce_losses(losses, share), torch.stack(flags) if flags else torch.zeros(0)

    def state_dict(self) -> dict[str, Tensor]:
        """All tensors that the next step depends on, by path: networks, optimizers, loss scalers and image pools."""
        state: dict[str, Tensor] = {}
        for name, network in self.system.networks.items():
            state |= {f"network/{name}/{key}": tensor for key, tensor in network.state_dict().items()}
        for name, optimizer in self.optimizers.items():
            for index, values in optimizer.state_dict()["state"].items():
                tensors = {key: torch.as_tensor(value) for key, value in values.items() if value is not None}
                state |= {f"optimizer/{name}/{index}/{key}": tensor for key, tensor in tensors.items()}
        for name, scaler in self.scalers.items():
            values = scaler.state_dict()
            state[f"scaler/{name}"] = torch.tensor([values["scale"], values["_growth_tracker"]], dtype=torch.float64)
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
            for path, tensor in _below(state, f"optimizer/{name}/").items():
                index, _, key = path.partition("/")
                values.setdefault(int(index), {})[key] = tensor
            optimizer.load_state_dict({**optimizer.state_dict(), "state": values})
            _copy_state(optimizer)
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
        """The device of the networks; the CPU for a system without networks."""
        parameters = (tensor for network in self.system.networks.values() for tensor in network.parameters())
        return next((parameter.device for parameter in parameters), torch.device("cpu"))

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        self.on_stage(name)
        with record_function(name):
            yield

    def _backward(self, phase: Phase, total: Tensor, share: float) -> Tensor:
        """Compute the gradients of a phase over the images of all processes; its loss, which is a mean over images."""
        scaler = self.scalers.get(phase.name)
        if self.process_group.world_size > 1:
            total = total * share
        (total if scaler is None else scaler.scale(total)).backward()
        total = total.detach()
        if self.process_group.world_size > 1:
            # Of all parameters that the phase trains, also those that this process did not use, so that sizes agree; and the
            # loss, so that the all-finite check agrees.
            gradients = [_gradient(parameter) for parameter in self._parameters(phase)]
            self.process_group.all_reduce([*gradients, total])
        if scaler is not None:
            scaler.unscale_(self.optimizers[phase.name])
            scaler.update()
        return total

    def _step_optimizer(self, optimizer: torch.optim.Optimizer, non_finite: Tensor) -> bool:
        """Step unless a value was non-finite; whether the host skipped it. On CUDA the device decides."""
        if self.is_asynchronous and can_skip_on_device(optimizer):
            _step_unless_non_finite(non_finite, optimizer)
        elif non_finite > 0:
            optimizer.zero_grad()
            return True
        else:
            optimizer.step()
        return False

    def _all_reduce_losses(self, losses: dict[str, Tensor], share: float) -> dict[str, Tensor]:
        """The losses over the images of all processes."""
        if self.process_group.world_size == 1 or not losses:
            return losses
        values = torch.stack(list(losses.values())) * share
        self.process_group.all_reduce([values])
        return dict(zip(losses, values.unbind(), strict=True))

    def _broadcast(self, *, parameters: bool = False) -> None:
        """Copy buffers, such as running statistics, from the main process; weights stay equal once they are."""
        if self.process_group.world_size == 1:
            return
        tensors = self._buffers()
        if parameters:
            tensors += [weight for network in self.system.networks.values() for weight in network.parameters()]
        self.process_group.broadcast(list(dict.fromkeys(tensors)))

    def _buffers(self) -> list[Tensor]:
        return [buffer for network in self.system.networks.values() for buffer in network.buffers()]

    def _parameters(self, phase: Phase) -> list[nn.Parameter]:
        # Each once, also if two networks share a layer.
        return list(dict.fromkeys(parameter for name in phase.trains for parameter in self._learning[name]))

    def _train_only(self, names: Iterable[str]) -> None:
        # Frozen networks first: a layer that a trained network shares with a frozen one is trained.
        trained = set(names)
        for name in sorted(self._learning, key=trained.__contains__):
            for parameter in self._learning[name]:
                parameter.requires_grad_(name in trained)


_TOTAL = "total"


def _refuse_reserved_name(phase: Phase, terms: Mapping[str, Tensor]) -> None:
    if _TOTAL in terms:
        raise PluginError(
            f"phase {phase.name}: a term is named '{_TOTAL}', which is the logged name of the sum; give it another name"
        )


def can_skip_on_device(optimizer: torch.optim.Optimizer) -> bool:
    """Whether a flag on the device can make an optimizer skip its step, as it can for fused ones."""
    return getattr(optimizer, "_step_supports_amp_scaling", False)


def _step_unless_non_finite(non_finite: Tensor, optimizer: Any) -> None:
    # This is how GradScaler passes its flag to fused optimizers; here nothing is scaled.
    optimizer.grad_scale, optimizer.found_inf = None, non_finite
    optimizer.step()
    del optimizer.grad_scale, optimizer.found_inf


def _is_non_finite(total: Tensor, optimizer: torch.optim.Optimizer) -> Tensor:
    """1 if the loss or a gradient is non-finite, else 0; in float32, as fused optimizers need it."""
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    norm = nn.utils.get_total_norm(gradients)
    return 1 - torch.isfinite(total.detach() + norm).float()


def _copy_state(optimizer: torch.optim.Optimizer) -> None:
    """Copy loaded tensors, which may be mapped to a file that is removed later.

    Moments get the memory format of their parameters, because fused optimizers read both in one order.
    """
    for parameter, values in optimizer.state.items():
        for key, tensor in values.items():
            if isinstance(tensor, Tensor):
                same_shape = tensor.shape == parameter.shape
                copy = torch.empty_like(parameter, dtype=tensor.dtype) if same_shape else torch.empty_like(tensor)
                values[key] = copy.copy_(tensor)


def _gradient(parameter: nn.Parameter) -> Tensor:
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad


def _below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}

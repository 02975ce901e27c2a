"""Rules of all networks: generators, discriminators and their coupled variants."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from gantoolkit.plugins import NetworkTraits, ObservingDiscriminator, read_traits
from gantoolkit.testing.kit import Draw, NotApplicable, Rulebook, Subject, expect, same_randomness
from gantoolkit.testing.rules.common import (
    all_close,
    check_deterministic,
    check_device,
    check_gradient,
    check_inputs_unchanged,
    flatten,
)

__all__ = ["Case", "DrawCase", "add_network_rules", "scale_weights"]


@dataclass(frozen=True)
class Case:
    """A function that builds the network under test from a seed, and inputs on the device of the test."""

    make: Callable[[int], nn.Module]
    inputs: tuple[Tensor, ...]


class DrawCase(Protocol):
    """Draws a case with at least `min_count` inputs in a batch."""

    def __call__(self, subject: Subject, draw: Draw, *, min_count: int = 1) -> Case: ...


def add_network_rules(book: Rulebook, draw_case: DrawCase) -> None:
    """Add the rules that hold for every network."""

    @book.rule
    def does_not_modify_input(subject: Subject, draw: Draw) -> None:
        """The inputs are not changed in place, neither in training mode nor in evaluation mode."""
        case = draw_case(subject, draw, min_count=2)
        network = case.make(0)
        check_inputs_unchanged(network.eval(), case.inputs)
        check_inputs_unchanged(network.train(), case.inputs)

    @book.rule
    def is_batch_invariant(subject: Subject, draw: Draw) -> None:
        """In evaluation mode the output for an image does not depend on the rest of its batch, unless the network declares
        `stochastic = True`.
        """
        case = draw_case(subject, draw, min_count=2)
        network, inputs = make_eval_network(case), to_float64(case.inputs)
        skip_stochastic(network)
        with torch.no_grad():
            together = flatten(network(*inputs))
            alone = flatten(network(*(tensor[:1] for tensor in inputs)))
        pairs = zip(together, alone, strict=True)
        difference = max((whole[:1] - one).abs().max().item() if len(whole) else 0.0 for whole, one in pairs)
        expect(
            all_close([whole[:1] for whole in together], alone),
            f"the output for an image differs by {difference:.3g} between a batch of one and a larger batch",
        )

    @book.rule
    def is_deterministic(subject: Subject, draw: Draw) -> None:
        """In evaluation mode equal inputs give equal outputs, without use of the global random generators, unless the network
        declares `stochastic = True`.
        """
        case = draw_case(subject, draw)
        network = make_eval_network(case)
        skip_stochastic(network)
        inputs = to_float64(case.inputs)
        with torch.no_grad():
            network(*inputs)  # the first call may create something at random
            check_deterministic(lambda: network(*inputs))

    @book.rule
    def trains_every_parameter(subject: Subject, draw: Draw) -> None:
        """Every parameter that is not frozen from the start receives a gradient other than 0."""
        case = draw_case(subject, draw, min_count=2)
        network = case.make(0).double().train()
        parameters = {name: p for name, p in network.named_parameters() if p.requires_grad}
        if not parameters:
            raise NotApplicable("it has no trainable parameters")
        with torch.no_grad():  # leave special points, such as a gate that starts closed
            for parameter in parameters.values():
                parameter.add_(torch.randn_like(parameter), alpha=0.05)
        outputs = flatten(network(*to_float64(case.inputs)))
        total = torch.stack([(output * torch.randn_like(output)).sum() for output in outputs]).sum()
        gradients = torch.autograd.grad(total, list(parameters.values()), allow_unused=True)
        unused = [
            name for name, gradient in zip(parameters, gradients, strict=True) if gradient is None or not gradient.any()
        ]
        expect(not unused, f"no gradient reaches {', '.join(unused[:5])}")

    @book.rule
    def supports_float64(subject: Subject, draw: Draw) -> None:
        """A float64 network computes in float64 throughout, and its gradient matches finite differences."""
        case = draw_case(subject, draw)
        network = make_eval_network(case)
        skip_stochastic(network)
        network.requires_grad_(False)
        check_gradient(network, case.inputs)

    @book.rule
    def restores_state(subject: Subject, draw: Draw) -> None:
        """The `state_dict` holds all that training changes: another network that loads it gives the same outputs."""
        case = draw_case(subject, draw, min_count=2)
        trained, other = case.make(0).double(), case.make(1).double()
        for _ in range(3):
            trained.train()(*to_float64(case.inputs))
            if isinstance(trained, ObservingDiscriminator):
                real = torch.full((2, 1, 2, 2), 5.0, device=subject.device)
                trained.observe(real, -real)
        other.load_state_dict(trained.state_dict())
        with torch.no_grad():
            expected_outputs, outputs = [], []
            for network, results in ((trained, expected_outputs), (other, outputs)):
                with same_randomness(0):
                    results += flatten(network.eval()(*to_float64(case.inputs)))
                with same_randomness(0):
                    results += flatten(network.train()(*to_float64(case.inputs)))
        expect(all_close(expected_outputs, outputs), "another network that loaded its state gives different outputs")

    @book.rule
    def is_device_agnostic(subject: Subject, draw: Draw) -> None:
        """The network can be moved to any device, and creates no tensor on another one."""
        case = draw_case(subject, draw, min_count=2)
        network = case.make(0)
        check_device(lambda *inputs: network.to(inputs[0].device)(*inputs), case.inputs)


def make_eval_network(case: Case) -> nn.Module:
    """Build the network in float64 and in evaluation mode, with running statistics that differ from their initial values."""
    network = case.make(0).double()
    with torch.no_grad():
        for name, tensor in network.named_buffers():
            if name.endswith("running_mean"):
                tensor.normal_(0, 0.1)
            elif name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5)
    return network.eval()


def to_float64(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(tensor.double() for tensor in inputs)


def skip_stochastic(network: Any) -> None:
    """Skip the rule for a network that declares itself stochastic."""
    if read_traits(network, NetworkTraits).stochastic:
        raise NotApplicable("it declares stochastic = True")


def scale_weights(network: nn.Module, factor: float, shift: float = 0.0) -> None:
    """Multiply all trainable parameters by `factor` and add `shift` to the biases, as training might."""
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.mul_(factor)
                if parameter.ndim == 1:
                    parameter.add_(shift)

"""Rules of everything that is a network: what must hold whatever it computes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from gantoolkit.plugins import NetworkTraits, ObservingDiscriminator, read_traits
from gantoolkit.testing.kit import Draw, NotApplicable, Rulebook, Subject, expect, same_randomness
from gantoolkit.testing.rules.common import (
    agree,
    check_device,
    check_gradient,
    check_inputs_kept,
    check_repeats,
    flatten,
)

__all__ = ["Case", "DrawCase", "add_network_rules", "enlarge"]


@dataclass(frozen=True)
class Case:
    """A way to make the network under test, and inputs for it on the device of the test."""

    make: Callable[[int], nn.Module]
    inputs: tuple[Tensor, ...]


class DrawCase(Protocol):
    """Draws a case; `min_count` is the least number of images in it."""

    def __call__(self, subject: Subject, draw: Draw, *, min_count: int = 1) -> Case: ...


def add_network_rules(book: Rulebook, draw_case: DrawCase) -> None:
    """The rules that hold for generators and discriminators alike."""

    @book.rule
    def does_not_modify_input(subject: Subject, draw: Draw) -> None:
        """What is passed in is read and never changed in place, neither in training nor in evaluation."""
        case = draw_case(subject, draw, min_count=2)
        network = case.make(0)
        check_inputs_kept(network.eval(), case.inputs)
        check_inputs_kept(network.train(), case.inputs)

    @book.rule
    def is_batch_invariant(subject: Subject, draw: Draw) -> None:
        """In evaluation mode an image gives the same result whatever else is in its batch (a generator that cannot promise
        this says so by a true attribute `stochastic`).
        """
        case = draw_case(subject, draw, min_count=2)
        network, inputs = evaluated(case), double(case.inputs)
        refuse_stochastic(network)
        with torch.no_grad():
            together = flatten(network(*inputs))
            alone = flatten(network(*(tensor[:1] for tensor in inputs)))
        pairs = zip(together, alone, strict=True)
        apart = max((whole[:1] - one).abs().max().item() if len(whole) else 0.0 for whole, one in pairs)
        expect(
            agree([whole[:1] for whole in together], alone), f"beside others, an image's result differs by {apart:.3g}"
        )

    @book.rule
    def is_deterministic(subject: Subject, draw: Draw) -> None:
        """In evaluation mode the same input gives the same output, whatever the state of the global random generators, which
        are left as they were (or a true attribute `stochastic` says otherwise).
        """
        case = draw_case(subject, draw)
        network = evaluated(case)
        refuse_stochastic(network)
        inputs = double(case.inputs)
        with torch.no_grad():
            network(*inputs)  # what is made once, at the first call, may draw
            check_repeats(lambda: network(*inputs))

    @book.rule
    def trains_every_parameter(subject: Subject, draw: Draw) -> None:
        """Every parameter that is not frozen when the network is made gets a gradient, and not always zero."""
        case = draw_case(subject, draw, min_count=2)
        network = case.make(0).double().train()
        parameters = {name: p for name, p in network.named_parameters() if p.requires_grad}
        if not parameters:
            raise NotApplicable("it has no parameters that learn")
        with torch.no_grad():  # away from special points, such as a gate that starts closed
            for parameter in parameters.values():
                parameter.add_(torch.randn_like(parameter), alpha=0.05)
        outputs = flatten(network(*double(case.inputs)))
        total = torch.stack([(output * torch.randn_like(output)).sum() for output in outputs]).sum()
        gradients = torch.autograd.grad(total, list(parameters.values()), allow_unused=True)
        idle = [
            name for name, gradient in zip(parameters, gradients, strict=True) if gradient is None or not gradient.any()
        ]
        expect(not idle, f"no gradient reaches {', '.join(idle[:5])}")

    @book.rule
    def preserves_float64(subject: Subject, draw: Draw) -> None:
        """In float64 it computes in float64 from end to end, and its gradient is the slope of its values."""
        case = draw_case(subject, draw)
        network = evaluated(case)
        refuse_stochastic(network)
        network.requires_grad_(False)
        check_gradient(network, case.inputs)

    @book.rule
    def saves_complete_state(subject: Subject, draw: Draw) -> None:
        """What it has become by training is in its `state_dict`: another one that loads it gives the same outputs."""
        case = draw_case(subject, draw, min_count=2)
        trained, other = case.make(0).double(), case.make(1).double()
        for _ in range(3):
            trained.train()(*double(case.inputs))
            if isinstance(trained, ObservingDiscriminator):
                real = torch.full((2, 1, 2, 2), 5.0, device=subject.device)
                trained.observe(real, -real)
        other.load_state_dict(trained.state_dict())
        with torch.no_grad():
            expected, found = [], []
            for network, results in ((trained, expected), (other, found)):
                with same_randomness(0):
                    results += flatten(network.eval()(*double(case.inputs)))
                with same_randomness(0):
                    results += flatten(network.train()(*double(case.inputs)))
        expect(agree(expected, found), "a network that loaded its state gives other outputs")

    @book.rule
    def follows_device(subject: Subject, draw: Draw) -> None:
        """Moved to another device, it works there: nothing is made on a device of its own choice."""
        case = draw_case(subject, draw, min_count=2)
        network = case.make(0)
        check_device(lambda *inputs: network.to(inputs[0].device)(*inputs), case.inputs)


def evaluated(case: Case) -> nn.Module:
    """The network in float64, in evaluation mode, with running statistics that are not those of a fresh one."""
    network = case.make(0).double()
    with torch.no_grad():
        for name, tensor in network.named_buffers():
            if name.endswith("running_mean"):
                tensor.normal_(0, 0.1)
            elif name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5)
    return network.eval()


def double(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(tensor.double() for tensor in inputs)


def refuse_stochastic(network: Any) -> None:
    """Pass over what a network that says it is stochastic cannot promise."""
    if read_traits(network, NetworkTraits).stochastic:
        raise NotApplicable("it says of itself that it is stochastic")


def enlarge(network: nn.Module, factor: float, shift: float = 0.0) -> None:
    """Multiply all weights that learn, and shift those that are biases: what training might make of them."""
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.mul_(factor)
                if parameter.ndim == 1:
                    parameter.add_(shift)

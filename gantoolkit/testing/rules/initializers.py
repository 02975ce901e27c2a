"""Rules of initializers."""

import copy

import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from gantoolkit.testing.kit import Draw, Rulebook, Subject, expect
from gantoolkit.testing.rules.common import add_schema_rule, check_deterministic
from gantoolkit.testing.strategies import seeds

__all__ = ["initializers"]

initializers = Rulebook("initializers", examples=10)
add_schema_rule(initializers)


def make_network() -> nn.Sequential:
    """One layer of every common type; on the CPU, where a run initializes weights before it moves them."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.LeakyReLU(0.2),
        spectral_norm(nn.Conv2d(8, 8, 3)),
        nn.InstanceNorm2d(8, affine=True),
        nn.ConvTranspose2d(8, 8, 4, stride=2),
        nn.Flatten(),
        nn.Linear(8, 4),
        nn.LayerNorm(4),
    )


def initial_weights(subject: Subject, seed: int) -> dict[str, torch.Tensor]:
    network = make_network()
    subject.make()(network, torch.Generator().manual_seed(seed))
    return {name: parameter.detach() for name, parameter in network.named_parameters()}


@initializers.rule
def initializes_every_weight(subject: Subject, draw: Draw) -> None:
    """Every weight of convolutions and linear layers is initialized, including those under spectral norm. All parameters are
    finite afterwards.
    """
    seed = draw(seeds(), "seed")
    network = make_network()
    before = {name: parameter.clone() for name, parameter in network.named_parameters()}
    subject.make()(network, torch.Generator().manual_seed(seed))
    for name, parameter in network.named_parameters():
        expect(bool(torch.isfinite(parameter).all()), f"{name} is not finite")
        expect(parameter.ndim < 2 or not torch.equal(parameter, before[name]), f"{name} is unchanged")


@initializers.rule
def uses_only_its_generator(subject: Subject, draw: Draw) -> None:
    """The weights depend on the state of the generator that is passed in, and on nothing else; another seed gives other
    weights.
    """
    seed = draw(seeds(), "seed")
    network, initialize = make_network(), subject.make()

    def weights() -> list[torch.Tensor]:
        duplicate = copy.deepcopy(network)
        initialize(duplicate, torch.Generator().manual_seed(seed))
        return list(duplicate.parameters())

    check_deterministic(weights)
    first, second = initial_weights(subject, seed), initial_weights(subject, seed + 1)
    same = [name for name in first if first[name].ndim > 1 and torch.equal(first[name], second[name])]
    expect(not same, f"{', '.join(same)} is the same for two seeds")


@initializers.rule
def skips_frozen_parameters(subject: Subject, draw: Draw) -> None:
    """Frozen parameters (`requires_grad` is false), such as those of a pretrained part, are left unchanged."""
    network = make_network()
    network[0].requires_grad_(False)
    before = {name: parameter.clone() for name, parameter in network[0].named_parameters()}
    subject.make()(network, torch.Generator().manual_seed(draw(seeds(), "seed")))
    changed = [name for name, parameter in network[0].named_parameters() if not torch.equal(parameter, before[name])]
    expect(not changed, f"{', '.join(changed)} of a frozen layer was initialized")

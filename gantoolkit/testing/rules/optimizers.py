"""Rules of optimizers."""

import copy

import torch
from hypothesis import strategies as st
from torch import nn

from gantoolkit.testing.kit import Draw, Rulebook, Subject, expect
from gantoolkit.testing.rules.common import add_schema_rule
from gantoolkit.testing.strategies import seeds

__all__ = ["optimizers"]

optimizers = Rulebook("optimizers", examples=15)
add_schema_rule(optimizers)


def make_parameters(subject: Subject, seed: int) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(4, 3, generator=generator).to(subject.device)) for _ in range(2)]


def take_steps(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], count: int) -> None:
    """Minimize the sum of the squares of all parameters for `count` steps."""
    for _ in range(count):
        optimizer.zero_grad()
        torch.stack([parameter.square().sum() for parameter in parameters]).sum().backward()
        optimizer.step()


@optimizers.rule
def decreases_loss(subject: Subject, draw: Draw) -> None:
    """It returns a `torch.optim.Optimizer` with a learning rate `lr`, whose steps decrease a quadratic loss."""
    parameters = make_parameters(subject, draw(seeds(), "seed"))
    optimizer = subject.make(parameters)
    expect(isinstance(optimizer, torch.optim.Optimizer), f"it returned a {type(optimizer).__name__}")
    expect(
        all("lr" in group for group in optimizer.param_groups),
        "a parameter group has no 'lr' for a scheduler to set",
    )
    before = sum(parameter.square().sum().item() for parameter in parameters)
    take_steps(optimizer, parameters, draw(st.integers(1, 20), "steps"))
    after = sum(parameter.square().sum().item() for parameter in parameters)
    expect(after < before, f"the loss went from {before:.6g} to {after:.6g}")


@optimizers.rule
def zero_lr_changes_nothing(subject: Subject, draw: Draw) -> None:
    """A step with a learning rate of 0, which a scheduler may set, changes no parameter."""
    parameters = make_parameters(subject, draw(seeds(), "seed"))
    optimizer = subject.make(parameters)
    take_steps(optimizer, parameters, draw(st.integers(0, 3), "steps before"))
    before = [parameter.detach().clone() for parameter in parameters]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    take_steps(optimizer, parameters, 1)
    moved = max((now - then).abs().max().item() for now, then in zip(parameters, before, strict=True))
    expect(moved == 0, f"a parameter moved by {moved:.3g}")


@optimizers.rule
def restores_state(subject: Subject, draw: Draw) -> None:
    """The `state_dict` holds all that later steps depend on: another optimizer that loads it takes the same steps."""
    seed, steps = draw(seeds(), "seed"), draw(st.integers(1, 6), "steps before")
    parameters = make_parameters(subject, seed)
    optimizer = subject.make(parameters)
    take_steps(optimizer, parameters, steps)
    others = [nn.Parameter(parameter.detach().clone()) for parameter in parameters]
    other = subject.make(others)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))  # loading alone would share the moments
    take_steps(optimizer, parameters, 2)
    take_steps(other, others, 2)
    same = all(torch.equal(parameter, other) for parameter, other in zip(parameters, others, strict=True))
    expect(same, "another optimizer that loaded its state takes different steps")

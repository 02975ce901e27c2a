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


def a_problem(subject: Subject, seed: int) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(4, 3, generator=generator).to(subject.device)) for _ in range(2)]


def take_steps(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], count: int) -> None:
    """Steps on the sum of the squares of all parameters."""
    for _ in range(count):
        optimizer.zero_grad()
        torch.stack([parameter.square().sum() for parameter in parameters]).sum().backward()
        optimizer.step()


@optimizers.rule
def decreases_loss(subject: Subject, draw: Draw) -> None:
    """It is a `torch.optim.Optimizer` of the parameters that it is given, with a rate `lr`, whose steps make a bowl's height
    smaller.
    """
    parameters = a_problem(subject, draw(seeds(), "seed"))
    optimizer = subject.make(parameters)
    expect(isinstance(optimizer, torch.optim.Optimizer), f"a {type(optimizer).__name__} was made")
    expect(all("lr" in group for group in optimizer.param_groups), "its groups have no 'lr' for a scheduler to change")
    before = sum(parameter.square().sum().item() for parameter in parameters)
    take_steps(optimizer, parameters, draw(st.integers(1, 20), "steps"))
    after = sum(parameter.square().sum().item() for parameter in parameters)
    expect(after < before, f"the height went from {before:.6g} to {after:.6g}")


@optimizers.rule
def zero_lr_changes_nothing(subject: Subject, draw: Draw) -> None:
    """With its rate set to 0, as by a scheduler, a step changes nothing."""
    parameters = a_problem(subject, draw(seeds(), "seed"))
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
    """Its `state_dict` holds all that its next step depends on: another one that loads it takes the same step."""
    seed, steps = draw(seeds(), "seed"), draw(st.integers(1, 6), "steps before")
    parameters = a_problem(subject, seed)
    optimizer = subject.make(parameters)
    take_steps(optimizer, parameters, steps)
    others = [nn.Parameter(parameter.detach().clone()) for parameter in parameters]
    other = subject.make(others)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))  # loading alone would share the moments
    take_steps(optimizer, parameters, 2)
    take_steps(other, others, 2)
    same = all(torch.equal(here, there) for here, there in zip(parameters, others, strict=True))
    expect(same, "after loading its state another optimizer goes elsewhere")

"""Optimizers by name: thin functions over torch.optim whose parameters are what a recipe may set."""

from collections.abc import Iterable, Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import nn

Rate = Annotated[float, Field(ge=0)]
Beta = Annotated[float, Field(ge=0, lt=1)]


def adam(
    parameters: Iterable[nn.Parameter],
    *,
    lr: Rate = 2e-4,
    beta1: Beta = 0.5,
    beta2: Beta = 0.999,
    weight_decay: Annotated[float, Field(ge=0)] = 0.0,
) -> torch.optim.Optimizer:
    """Adam (Kingma and Ba 2015) with CycleGAN's rate and moments (Zhu et al. 2017, §4).

    Args:
        lr: Learning rate, before the scheduler's factor.
        beta1: Decay of the gradient's running mean.
        beta2: Decay of the squared gradient's running mean.
        weight_decay: Weight of the L2 penalty that is added to the gradient.
    """
    learning = list(parameters)
    return torch.optim.Adam(learning, lr=lr, betas=(beta1, beta2), weight_decay=weight_decay, **_in_one_pass(learning))


def adamw(
    parameters: Iterable[nn.Parameter],
    *,
    lr: Rate = 2e-4,
    beta1: Beta = 0.5,
    beta2: Beta = 0.999,
    weight_decay: Annotated[float, Field(ge=0)] = 0.01,
) -> torch.optim.Optimizer:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019).

    Args:
        lr: Learning rate, before the scheduler's factor.
        beta1: Decay of the gradient's running mean.
        beta2: Decay of the squared gradient's running mean.
        weight_decay: Share of each weight, times the rate, that a step takes away.
    """
    learning = list(parameters)
    return torch.optim.AdamW(learning, lr=lr, betas=(beta1, beta2), weight_decay=weight_decay, **_in_one_pass(learning))


def rmsprop(parameters: Iterable[nn.Parameter], *, lr: Rate = 5e-5, decay: Beta = 0.99) -> torch.optim.Optimizer:
    """RMSProp, as the first Wasserstein GANs used it (Arjovsky et al. 2017).

    Args:
        lr: Learning rate, before the scheduler's factor.
        decay: Decay of the squared gradient's running mean.
    """
    return torch.optim.RMSprop(parameters, lr=lr, alpha=decay)


def sgd(
    parameters: Iterable[nn.Parameter],
    *,
    lr: Rate = 0.01,
    momentum: Beta = 0.0,
    weight_decay: Annotated[float, Field(ge=0)] = 0.0,
) -> torch.optim.Optimizer:
    """Stochastic gradient descent.

    Args:
        lr: Learning rate, before the scheduler's factor.
        momentum: Decay of the running sum of gradients.
        weight_decay: Weight of the L2 penalty that is added to the gradient.
    """
    learning = list(parameters)
    # Fused, its moments would be whatever lay in memory, where the first step is told not to be taken (torch 2.15).
    way = {} if momentum else _in_one_pass(learning)
    return torch.optim.SGD(learning, lr=lr, momentum=momentum, weight_decay=weight_decay, **way)


def _in_one_pass(parameters: Sequence[nn.Parameter]) -> dict[str, bool]:
    """How torch updates all parameters in one pass over memory, with nothing in between to keep.

    Those without memory, on the device `meta`, it takes one by one only; that comes nearest.
    """
    real = all(parameter.device.type in ("cpu", "cuda") for parameter in parameters)
    return {"fused": True} if real else {"foreach": False}

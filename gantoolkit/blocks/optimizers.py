"""Optimizers: thin functions over torch.optim. A recipe may set their keyword parameters."""

from collections.abc import Iterable, Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import nn

NonNegative = Annotated[float, Field(ge=0)]
Beta = Annotated[float, Field(ge=0, lt=1)]


def adam(
    parameters: Iterable[nn.Parameter],
    *,
    lr: NonNegative = 2e-4,
    beta1: Beta = 0.5,
    beta2: Beta = 0.999,
    weight_decay: NonNegative = 0.0,
) -> torch.optim.Optimizer:
    """Adam (Kingma and Ba 2015) with CycleGAN's learning rate and momentum (Zhu et al. 2017, §4).

    Args:
        lr: Learning rate, before the scheduler's factor.
        beta1: Decay of the gradient's running mean.
        beta2: Decay of the squared gradient's running mean.
        weight_decay: Weight of the L2 penalty that is added to the gradient.
    """
    parameters = list(parameters)
    return torch.optim.Adam(parameters, lr=lr, betas=(beta1, beta2), weight_decay=weight_decay, **_fused(parameters))


def adamw(
    parameters: Iterable[nn.Parameter],
    *,
    lr: NonNegative = 2e-4,
    beta1: Beta = 0.5,
    beta2: Beta = 0.999,
    weight_decay: NonNegative = 0.01,
) -> torch.optim.Optimizer:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019).

    Args:
        lr: Learning rate, before the scheduler's factor.
        beta1: Decay of the gradient's running mean.
        beta2: Decay of the squared gradient's running mean.
        weight_decay: Decay coefficient; a step subtracts this share of each weight, times the learning rate.
    """
    parameters = list(parameters)
    return torch.optim.AdamW(parameters, lr=lr, betas=(beta1, beta2), weight_decay=weight_decay, **_fused(parameters))


def rmsprop(parameters: Iterable[nn.Parameter], *, lr: NonNegative = 5e-5, decay: Beta = 0.99) -> torch.optim.Optimizer:
    """RMSProp, as the first Wasserstein GANs used it (Arjovsky et al. 2017).

    Args:
        lr: Learning rate, before the scheduler's factor.
        decay: Decay of the squared gradient's running mean.
    """
    return torch.optim.RMSprop(parameters, lr=lr, alpha=decay)


def sgd(
    parameters: Iterable[nn.Parameter],
    *,
    lr: NonNegative = 0.01,
    momentum: Beta = 0.0,
    weight_decay: NonNegative = 0.0,
) -> torch.optim.Optimizer:
    """Stochastic gradient descent.

    Args:
        lr: Learning rate, before the scheduler's factor.
        momentum: Decay of the running sum of gradients.
        weight_decay: Weight of the L2 penalty that is added to the gradient.
    """
    parameters = list(parameters)
    # If the scaler skips the first step, fused SGD leaves its momentum buffers uninitialized (torch 2.15).
    options = {} if momentum else _fused(parameters)
    return torch.optim.SGD(parameters, lr=lr, momentum=momentum, weight_decay=weight_decay, **options)


def _fused(parameters: Sequence[nn.Parameter]) -> dict[str, bool]:
    """Select the fused implementation, which updates all parameters in one pass without temporary tensors.

    The meta device does not support it; the closest implementation there is a loop over the parameters.
    """
    is_supported = all(parameter.device.type in ("cpu", "cuda") for parameter in parameters)
    return {"fused": True} if is_supported else {"foreach": False}

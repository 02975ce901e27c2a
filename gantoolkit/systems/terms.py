"""What the systems' objectives are made of."""

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from gantoolkit.plugins import AdversarialLoss, PenalisedLoss

Weight = Annotated[float, Field(ge=0)]

DomainWeight = Weight | tuple[Weight, Weight]
"""A weight for both domains, or one for A and one for B."""


def per_domain(weight: float | tuple[float, float]) -> tuple[float, float]:
    """The weights for A and for B."""
    return weight if isinstance(weight, tuple) else (weight, weight)


def apply_to_each(network: nn.Module, inputs: Sequence[Tensor], *, batched: bool = True) -> list[Tensor]:
    """Pass several batches through one network, together where that changes nothing but the time it takes.

    Batch norm sees its batch, so a network that has it gets the batches one by one, in order.
    """
    alike = len({batch.shape[1:] for batch in inputs}) == 1
    if not (batched and alike) or len(inputs) == 1 or _has_batch_norm(network):
        return [network(batch) for batch in inputs]
    return list(network(torch.cat(list(inputs))).split([len(batch) for batch in inputs]))


def discriminator_terms(
    loss: AdversarialLoss, discriminator: nn.Module, real: Tensor, fake: Tensor, *, batched: bool = True
) -> tuple[Tensor, Tensor]:
    """The two halves of a discriminator's loss, 0.5·fake and 0.5·real (Zhu et al. 2017, §4: the objective is divided by 2).

    A loss that penalises the discriminator itself has its penalty, whole, in the real part.
    """
    fake_logits, real_logits = apply_to_each(discriminator, [fake, real], batched=batched)
    fake_term, real_term = 0.5 * loss.fake(fake_logits), 0.5 * loss.real(real_logits)
    if isinstance(loss, PenalisedLoss):
        real_term = real_term + loss.penalty(discriminator, real, fake)
    return fake_term, real_term


def _has_batch_norm(network: nn.Module) -> bool:
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules())

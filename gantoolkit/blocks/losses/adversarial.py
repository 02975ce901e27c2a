"""Adversarial losses of the discriminator and the generator, as functions of the discriminator's logits.

Each method returns the mean over all logits. The system computes the discriminator loss as half the sum of its `real` and
`fake` parts (Zhu et al. 2017, §4 divides that objective by two).
"""

from collections.abc import Callable
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional


class LSGAN:
    """Least-squares loss (Mao et al. 2017): the squared distance of the logits from a target.

    Args:
        real_target: Target of the discriminator for real images, and of the generator for its fakes.
        fake_target: Target of the discriminator for fakes.
    """

    def __init__(self, *, real_target: float = 1.0, fake_target: float = 0.0) -> None:
        self.real_target = real_target
        self.fake_target = fake_target

    def real(self, logits: Tensor) -> Tensor:
        return (logits - self.real_target).square().mean()

    def fake(self, logits: Tensor) -> Tensor:
        return (logits - self.fake_target).square().mean()

    def generator(self, logits: Tensor) -> Tensor:
        return self.real(logits)


class NLL:
    """Negative log-likelihood (Goodfellow et al. 2014) on logits; the generator minimizes the non-saturating −log D."""

    def real(self, logits: Tensor) -> Tensor:
        return functional.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))

    def fake(self, logits: Tensor) -> Tensor:
        return functional.binary_cross_entropy_with_logits(logits, torch.zeros_like(logits))

    def generator(self, logits: Tensor) -> Tensor:
        return self.real(logits)


class Hinge:
    """Hinge loss (Lim and Ye 2017): it pushes real logits above 1 and fake ones below −1."""

    def real(self, logits: Tensor) -> Tensor:
        return functional.relu(1 - logits).mean()

    def fake(self, logits: Tensor) -> Tensor:
        return functional.relu(1 + logits).mean()

    def generator(self, logits: Tensor) -> Tensor:
        return -logits.mean()


class WGANGP:
    """Wasserstein distance with a gradient penalty (Gulrajani et al. 2017).

    Args:
        penalty_weight: Weight of the penalty (the paper's λ).
    """

    def __init__(self, *, penalty_weight: Annotated[float, Field(ge=0)] = 10.0) -> None:
        self.penalty_weight = penalty_weight

    def real(self, logits: Tensor) -> Tensor:
        return -logits.mean()

    def fake(self, logits: Tensor) -> Tensor:
        return logits.mean()

    def generator(self, logits: Tensor) -> Tensor:
        return -logits.mean()

    def penalty(self, discriminator: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor:
        """The squared deviation of the gradient's norm from 1, at a random point between each real image and a fake."""
        share = torch.rand(len(real), 1, 1, 1, device=real.device, dtype=real.dtype)
        points = torch.lerp(real.detach(), fake.detach(), share).requires_grad_()
        logits = discriminator(points)
        (gradient,) = torch.autograd.grad(logits.sum(), points, create_graph=True)
        # The derivative of the root is infinite at 0, the norm for a discriminator that ignores its input.
        norm = gradient.flatten(1).square().sum(dim=1).clamp_min(torch.finfo(gradient.dtype).tiny).sqrt()
        return self.penalty_weight * (norm - 1).square().mean()

"""Discriminators that augment what they see and leave judging to another discriminator.

Because every image that a discriminator sees passes through here, real and fake, in its own step and in the generator's, any
system can use them; gradients pass to the generator. In evaluation mode nothing is augmented.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from gantoolkit.plugins import DiscriminatorBlock, ObservingDiscriminator
from gantoolkit_augment.operations import blend_colors, cut_out, mix_channels, move, warp

Share = Annotated[float, Field(ge=0, le=1)]


class DiffAugment(nn.Module):
    """Colors, place and a cutout change at random in every image (Zhao et al. 2020).

    Args:
        in_channels: Channels of the images to judge.
        discriminator: Who judges.
        color: Change brightness, saturation and contrast.
        translation: Largest shift, as a share of the side; 0 for none.
        cutout: Side of the square that is made gray, as a share of the image's; 0 for none.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        discriminator: DiscriminatorBlock,
        color: bool = True,
        translation: Share = 0.125,
        cutout: Share = 0.5,
    ) -> None:
        super().__init__()
        self.discriminator = discriminator(in_channels)
        self.color, self.translation, self.cutout = color, translation, cutout

    def forward(self, images: Tensor) -> Tensor:
        """Judge (N, in_channels, H, W) in [−1, 1], in training mode after augmenting them; logits (N, 1, H', W')."""
        return self.discriminator(self.augment(images) if self.training else images)

    def augment(self, images: Tensor) -> Tensor:
        """Images as the discriminator sees them while it trains; of the same shape."""
        if images.is_meta:  # the shape is all that there is
            return images
        images = blend_colors(images) if self.color else images
        images = move(images, self.translation) if self.translation else images
        return cut_out(images, self.cutout) if self.cutout else images

    def observe(self, real: Tensor, fake: Tensor) -> None:
        """Pass on how it does."""
        if isinstance(self.discriminator, ObservingDiscriminator):
            self.discriminator.observe(real, fake)


class AdaptiveAugment(nn.Module):
    """Augments with a probability that rises while the discriminator is too sure of real images, and else falls (ADA).

    Sureness is r_t of Karras et al. 2020, §3: the mean sign of logits for real images. Augmented are place, size, orientation
    and color, each by itself.

    Args:
        in_channels: Channels of the images to judge.
        discriminator: Who judges.
        target: The sureness to aim at.
        images_to_full: Images of one sureness sign that take the probability from 0 to 1; the paper takes 500,000.
        interval: Steps of the discriminator between two changes.
        boundary: The logit between real and fake: 0 for losses on signs (NLL, hinge), ½ for LSGAN.
        start: Probability at first.
        limit: The largest probability.
    """

    p: Tensor
    sure: Tensor
    seen: Tensor

    def __init__(
        self,
        in_channels: int,
        *,
        discriminator: DiscriminatorBlock,
        target: Annotated[float, Field(gt=-1, lt=1)] = 0.6,
        images_to_full: Annotated[int, Field(ge=1)] = 500_000,
        interval: Annotated[int, Field(ge=1)] = 4,
        boundary: float = 0.0,
        start: Share = 0.0,
        limit: Share = 1.0,
    ) -> None:
        super().__init__()
        self.discriminator = discriminator(in_channels)
        self.target, self.images_to_full, self.interval = target, images_to_full, interval
        self.boundary, self.limit = boundary, limit
        # Buffers, so that a run continues with them.
        self.register_buffer("p", torch.tensor(float(start)))
        self.register_buffer("sure", torch.zeros(()))
        self.register_buffer("seen", torch.zeros(2))

    def forward(self, images: Tensor) -> Tensor:
        """Judge (N, in_channels, H, W) in [−1, 1], in training mode after augmenting them; logits (N, 1, H', W')."""
        return self.discriminator(self.augment(images) if self.training else images)

    def augment(self, images: Tensor) -> Tensor:
        """Images as the discriminator sees them while it trains; of the same shape."""
        if images.is_meta:  # the shape is all that there is
            return images
        return mix_channels(warp(images, self.p), self.p)

    @torch.no_grad()
    def observe(self, real: Tensor, fake: Tensor) -> None:
        """Take the logits of one step; every `interval` steps the probability changes."""
        self.sure += (real - self.boundary).sign().mean()
        self.seen += torch.tensor([1.0, len(real)], device=self.seen.device)
        due = self.seen[0] >= self.interval
        change = (self.sure / self.seen[0] - self.target).sign() * self.seen[1] / self.images_to_full
        self.p.copy_(torch.where(due, (self.p + change).clamp(0, self.limit), self.p))
        self.sure.mul_(~due)
        self.seen.mul_(~due)
        if isinstance(self.discriminator, ObservingDiscriminator):
            self.discriminator.observe(real, fake)

"""Discriminators that augment images and pass them to another discriminator.

They augment real and fake images, in the discriminator's step and in the generator's, so any system can use them. Gradients
pass through to the generator. Evaluation mode disables augmentation.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from gantoolkit.plugins import DiscriminatorBlock, ObservingDiscriminator
from gantoolkit_augment.operations import blend_colors, cut_out, mix_channels, move, warp

Share = Annotated[float, Field(ge=0, le=1)]


class DiffAugment(nn.Module):
    """Augments every image with random colors, a translation and a cutout (Zhao et al. 2020).

    Args:
        in_channels: Channels of the images to judge.
        discriminator: The discriminator that judges the augmented images.
        color: Change brightness, saturation and contrast.
        translation: Maximum shift, as a share of the side; 0 for none.
        cutout: Side of the gray square, as a share of the image's side; 0 for none.
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
        """Judge (N, in_channels, H, W) in [−1, 1], augmented in training mode, as logits (N, 1, H', W')."""
        return self.discriminator(self.augment(images) if self.training else images)

    def augment(self, images: Tensor) -> Tensor:
        """Augment images as in training; same shape."""
        if images.is_meta:  # only shapes matter on the meta device
            return images
        images = blend_colors(images) if self.color else images
        images = move(images, self.translation) if self.translation else images
        return cut_out(images, self.cutout) if self.cutout else images

    def observe(self, real: Tensor, fake: Tensor) -> None:
        """Pass the logits on to the inner discriminator."""
        if isinstance(self.discriminator, ObservingDiscriminator):
            self.discriminator.observe(real, fake)


class AdaptiveAugment(nn.Module):
    """Augments with a probability that rises while the discriminator overfits, and falls otherwise (ADA).

    The measure of overfitting is r_t of Karras et al. 2020, §3: the mean sign of the logits of real images. Position, size,
    orientation and color are augmented independently.

    Args:
        in_channels: Channels of the images to judge.
        discriminator: The discriminator that judges the augmented images.
        target: Target value of r_t.
        images_to_full: Number of images over which the probability may rise from 0 to 1; the paper uses 500,000.
        interval: Discriminator steps between two updates of the probability.
        boundary: The logit between real and fake: 0 for NLL and hinge, ½ for LSGAN.
        start: Initial probability.
        limit: Maximum probability.
    """

    p: Tensor
    sign_sum: Tensor
    counts: Tensor

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
        # Buffers are saved in checkpoints, so resuming restores them.
        self.register_buffer("p", torch.tensor(float(start)))
        self.register_buffer("sign_sum", torch.zeros(()))
        self.register_buffer("counts", torch.zeros(2))  # steps and images

    def forward(self, images: Tensor) -> Tensor:
        """Judge (N, in_channels, H, W) in [−1, 1], augmented in training mode, as logits (N, 1, H', W')."""
        return self.discriminator(self.augment(images) if self.training else images)

    def augment(self, images: Tensor) -> Tensor:
        """Augment images as in training; same shape."""
        if images.is_meta:  # only shapes matter on the meta device
            return images
        return mix_channels(warp(images, self.p), self.p)

    @torch.no_grad()
    def observe(self, real: Tensor, fake: Tensor) -> None:
        """Record the logits of a step, and update the probability every `interval` steps."""
        self.sign_sum += (real - self.boundary).sign().mean()
        self.counts += torch.tensor([1.0, len(real)], device=self.counts.device)
        is_due = self.counts[0] >= self.interval
        change = (self.sign_sum / self.counts[0] - self.target).sign() * self.counts[1] / self.images_to_full
        self.p.copy_(torch.where(is_due, (self.p + change).clamp(0, self.limit), self.p))
        self.sign_sum.mul_(~is_due)
        self.counts.mul_(~is_due)
        if isinstance(self.discriminator, ObservingDiscriminator):
            self.discriminator.observe(real, fake)

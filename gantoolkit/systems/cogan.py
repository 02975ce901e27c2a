"""CoGAN: two GANs with shared layers, which render one latent vector in two domains (Liu and Tuzel 2016)."""

from functools import partial
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from gantoolkit.plugins import (
    AdversarialLossBlock,
    Batch,
    CoupledDiscriminatorBlock,
    CoupledGeneratorBlock,
    ImageLoss,
    ImageLossBlock,
    Pairing,
    Phase,
    Shared,
    SystemContext,
)
from gantoolkit.systems.objectives import gradients, penalty

_STARTS = 64
"""Latent vectors from which a search may start."""


class CoGAN:
    """One coupled generator, G, and one coupled discriminator, D: a pair of each, with shared layers.

    G never sees an image. The images of A and B that it renders from one latent vector show the same thing, because the layers
    that determine the content are shared. An image is translated by searching for the latent vector that renders it, and
    rendering that vector in the other domain (§5, cross-domain image transformation).

    Args:
        context: Channels and side of the images.
        coupled_generator: Builds the pair of generators.
        coupled_discriminator: Builds the pair of discriminators.
        adversarial_loss: Scores logits.
        search_loss: Distance between a rendered image and the image to translate.
        search_steps: Steps of the search.
        search_lr: Learning rate of the search (Adam).
    """

    pairing: Pairing = "unpaired"

    def __init__(
        self,
        context: SystemContext,
        *,
        coupled_generator: CoupledGeneratorBlock,
        coupled_discriminator: CoupledDiscriminatorBlock,
        adversarial_loss: AdversarialLossBlock,
        search_loss: ImageLossBlock,
        search_steps: Annotated[int, Field(ge=1)] = 200,
        search_lr: Annotated[float, Field(gt=0)] = 0.05,
    ) -> None:
        sizes = (context.channels_A, context.channels_B, context.crop_size)
        self.G, self.D = coupled_generator(*sizes), coupled_discriminator(*sizes)
        self.adversarial = adversarial_loss()
        self.latent_size: int = self.G.latent_size  # type: ignore[assignment] (required by the protocol)
        self.networks = {"G": self.G, "D": self.D}
        self.pools = {}

        def search(source: int) -> LatentSearch:
            return LatentSearch(self.G, source, context.crop_size, search_loss(), steps=search_steps, lr=search_lr)

        self.directions = {"A2B": search(0), "B2A": search(1)}
        self.phases = [Phase("D", ("D",), self.discriminator_losses), Phase("G", ("G",), self.generator_losses)]

    def forward(self, batch: Batch) -> Shared:
        """Render one latent vector per image of the batch, uniform in [−1, 1], in both domains."""
        like = batch["A"]
        latents = torch.rand(len(like), self.latent_size, dtype=like.dtype, device=like.device) * 2 - 1
        fake_A, fake_B = self.G(latents)
        return {"fake_A": fake_A, "fake_B": fake_B}

    def discriminator_losses(self, batch: Batch, shared: Shared) -> dict[str, Tensor]:
        """In each domain, real images against rendered ones (§3, equation 2)."""
        real = self.D(batch["A"], batch["B"])
        fake = self.D(shared["fake_A"].detach(), shared["fake_B"].detach())
        losses: dict[str, Tensor] = {}
        for index, domain in enumerate("AB"):
            objective = 0.5 * (self.adversarial.real(real[index]) + self.adversarial.fake(fake[index]))
            score = partial(self._logits, batch, index)
            losses[f"D_{domain}"] = objective + penalty(
                self.adversarial, score, batch[domain], shared[f"fake_{domain}"].detach()
            )
        return losses

    def _logits(self, batch: Batch, index: int, images: Tensor) -> Tensor:
        """The logits of one domain; the other half of the pair sees the batch."""
        pair = (images, batch["B"]) if index == 0 else (batch["A"], images)
        return self.D(*pair)[index]

    def generator_losses(self, batch: Batch, shared: Shared) -> dict[str, Tensor]:
        """The adversarial terms of both domains."""
        logits = self.D(shared["fake_A"], shared["fake_B"])
        return {f"adversarial_{domain}": self.adversarial.generator(logits[index]) for index, domain in enumerate("AB")}

    def sample(self, batch: Batch) -> dict[str, Tensor]:
        """Pairs rendered from fixed latent vectors; then an image of A, its reconstruction by the search, its translation."""
        A = batch["A"]
        pair_A, pair_B = self.G(draw_latents(len(A), self.latent_size, A))
        rendered, translated = self.directions["A2B"].render(A)
        return {"pair_A": pair_A, "pair_B": pair_B, "real_A": A, "rec_A": rendered, "fake_B": translated}


class LatentSearch(nn.Module):
    """Translates an image by searching for the latent vector that renders it (Liu and Tuzel 2016, §5).

    Args:
        generator: The pair of generators; it is not trained.
        source: 0 searches in A and renders in B, 1 the reverse.
        side: Height and width of rendered images; inputs are resized to it, and results back.
        distance: What the search minimizes.
        steps: Steps of Adam, from the nearest of a fixed set of latent vectors.
        lr: Learning rate of Adam.
    """

    size_multiple = 1
    optimizes = True

    def __init__(
        self, generator: nn.Module, source: int, side: int, distance: ImageLoss, *, steps: int, lr: float
    ) -> None:
        super().__init__()
        self.generator = generator
        self.latent_size: int = generator.latent_size  # type: ignore[assignment]
        self.source = source
        self.side = side
        self.distance = distance
        self.steps = steps
        self.lr = lr

    def forward(self, images: Tensor) -> Tensor:
        """Translate (N, C, H, W) in [−1, 1]: (N, C', H, W)."""
        translated = self.render(functional.interpolate(images, self.side, mode="bilinear", antialias=True))[1]
        return functional.interpolate(translated, images.shape[-2:], mode="bilinear", antialias=True)

    def render(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Render the latent vectors of `images` (N, C, side, side) in their own domain and in the other one."""
        with gradients():
            images = images.clone()
            latents = self._nearest(images).requires_grad_()
            # Adam works per element and the loss is a sum over images, so images do not affect each other.
            optimizer = torch.optim.Adam([latents], lr=self.lr)
            for _ in range(1 if images.is_meta else self.steps):
                rendered = self.generator(latents)[self.source]
                pairs = zip(rendered.split(1), images.split(1), strict=True)
                distance = torch.stack([self.distance(image, target) for image, target in pairs])
                (latents.grad,) = torch.autograd.grad(distance.sum(), latents)
                optimizer.step()
                with torch.no_grad():
                    latents.clamp_(-1, 1)  # the range of training
        with torch.no_grad():
            rendered = self.generator(latents)
        return rendered[self.source], rendered[1 - self.source]

    @torch.no_grad()
    def _nearest(self, images: Tensor) -> Tensor:
        """For each image, the starting vector that renders the closest image."""
        latents = draw_latents(1 if images.is_meta else _STARTS, self.latent_size, images)
        candidates = self.generator(latents)[self.source].split(1)
        nearest = [
            torch.stack([self.distance(candidate, image) for candidate in candidates]).argmin(keepdim=True)
            for image in images.split(1)
        ]
        return latents[torch.cat(nearest)].clone()


def draw_latents(count: int, size: int, like: Tensor) -> Tensor:
    """Fixed latent vectors (count, size), uniform in [−1, 1]; a smaller count gives the first ones of a larger."""
    return (torch.rand(count, size, generator=torch.Generator("cpu").manual_seed(0), device="cpu") * 2 - 1).to(like)

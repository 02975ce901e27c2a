"""CoGAN: two GANs that render one latent in two domains, tied to each other (Liu and Tuzel 2016)."""

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
"""Latents that a search may start from."""


class CoGAN:
    """One coupled generator, G, and one coupled discriminator, D: a pair of each, with tied layers.

    G never sees an image. What it renders in A and in B from one latent shows the same thing, because the layers that decide
    what is shown are tied. An image is translated by searching the latent that renders it, and rendering that latent in the
    other domain (§5, cross-domain image transformation).

    Args:
        context: Channels and side of the images.
        coupled_generator: Makes the pair of generators.
        coupled_discriminator: Makes the pair of discriminators.
        adversarial_loss: How logits are judged.
        search_loss: Distance of what a latent renders from the image to translate.
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
        self.latent_size: int = self.G.latent_size  # type: ignore[assignment] (a block of this kind has it)
        self.networks = {"G": self.G, "D": self.D}
        self.pools = {}

        def search(source: int) -> LatentSearch:
            return LatentSearch(self.G, source, context.crop_size, search_loss(), steps=search_steps, rate=search_lr)

        self.directions = {"A2B": search(0), "B2A": search(1)}
        self.phases = [Phase("D", ("D",), self.discriminator_losses), Phase("G", ("G",), self.generator_losses)]

    def forward(self, batch: Batch) -> Shared:
        """One latent for each image of the batch, uniform in [−1, 1], rendered in both domains."""
        like = batch["A"]
        latents = torch.rand(len(like), self.latent_size, dtype=like.dtype, device=like.device) * 2 - 1
        fake_A, fake_B = self.G(latents)
        return {"fake_A": fake_A, "fake_B": fake_B}

    def discriminator_losses(self, batch: Batch, shared: Shared) -> dict[str, Tensor]:
        """In each domain, real images against what was rendered (§3, equation 2)."""
        real = self.D(batch["A"], batch["B"])
        fake = self.D(shared["fake_A"].detach(), shared["fake_B"].detach())
        losses: dict[str, Tensor] = {}
        for place, domain in enumerate("AB"):
            objective = 0.5 * (self.adversarial.real(real[place]) + self.adversarial.fake(fake[place]))
            judge = partial(self._judge, batch, place)
            losses[f"D_{domain}"] = objective + penalty(
                self.adversarial, judge, batch[domain], shared[f"fake_{domain}"].detach()
            )
        return losses

    def _judge(self, batch: Batch, place: int, images: Tensor) -> Tensor:
        """One domain's logits; the other half of the pair looks at the batch."""
        pair = (images, batch["B"]) if place == 0 else (batch["A"], images)
        return self.D(*pair)[place]

    def generator_losses(self, batch: Batch, shared: Shared) -> dict[str, Tensor]:
        """To be taken for real in both domains."""
        logits = self.D(shared["fake_A"], shared["fake_B"])
        return {f"adversarial_{domain}": self.adversarial.generator(logits[place]) for place, domain in enumerate("AB")}

    def sample(self, batch: Batch) -> dict[str, Tensor]:
        """Pairs rendered from fixed latents; then an image of A, what the search rendered in its place, its translation."""
        A = batch["A"]
        pair_A, pair_B = self.G(draw_latents(len(A), self.latent_size, A))
        rendered, translated = self.directions["A2B"].render(A)
        return {"pair_A": pair_A, "pair_B": pair_B, "real_A": A, "found_A": rendered, "fake_B": translated}


class LatentSearch(nn.Module):
    """Translates an image by searching the latent that renders it (Liu and Tuzel 2016, §5).

    Args:
        generator: The pair of generators; it is not trained.
        source: 0 searches in A and renders in B, 1 the other way round.
        side: Height and width that the generators make; images are resized to it, and their translations back.
        distance: What the search makes small.
        steps: Steps of Adam, from the nearest of some latents drawn once and for all.
        rate: Its learning rate.
    """

    size_multiple = 1
    optimizes = True

    def __init__(
        self, generator: nn.Module, source: int, side: int, distance: ImageLoss, *, steps: int, rate: float
    ) -> None:
        super().__init__()
        self.generator = generator
        self.latent_size: int = generator.latent_size  # type: ignore[assignment]
        self.source = source
        self.side = side
        self.distance = distance
        self.steps = steps
        self.rate = rate

    def forward(self, images: Tensor) -> Tensor:
        """Translate (N, C, H, W) in [−1, 1]: (N, C', H, W)."""
        translated = self.render(functional.interpolate(images, self.side, mode="bilinear", antialias=True))[1]
        return functional.interpolate(translated, images.shape[-2:], mode="bilinear", antialias=True)

    def render(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """What the latents found for `images` (N, C, side, side) render in their own domain and in the other one."""
        with gradients():
            images = images.clone()
            latents = self._nearest(images).requires_grad_()
            # Adam moves each number by its own gradient, and the loss is a sum over images: no image disturbs another.
            optimizer = torch.optim.Adam([latents], lr=self.rate)
            for _ in range(1 if images.is_meta else self.steps):
                made = self.generator(latents)[self.source]
                distance = torch.stack([self.distance(made[i : i + 1], images[i : i + 1]) for i in range(len(images))])
                (latents.grad,) = torch.autograd.grad(distance.sum(), latents)
                optimizer.step()
                with torch.no_grad():
                    latents.clamp_(-1, 1)  # where the generators were trained
        with torch.no_grad():
            made = self.generator(latents)
        return made[self.source], made[1 - self.source]

    @torch.no_grad()
    def _nearest(self, images: Tensor) -> Tensor:
        """For each image, that of the starting latents which renders something closest to it."""
        latents = draw_latents(1 if images.is_meta else _STARTS, self.latent_size, images)
        made = self.generator(latents)[self.source]
        nearest = [
            torch.stack([self.distance(one[None], image[None]) for one in made]).argmin(keepdim=True)
            for image in images
        ]
        return latents[torch.cat(nearest)].clone()


def draw_latents(count: int, size: int, like: Tensor) -> Tensor:
    """Latents (count, size), uniform in [−1, 1]: the same ones each time, and the first ones of any larger draw."""
    return (torch.rand(count, size, generator=torch.Generator("cpu").manual_seed(0), device="cpu") * 2 - 1).to(like)

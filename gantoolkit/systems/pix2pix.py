"""pix2pix: paired translation with a conditional discriminator (Isola et al. 2017)."""

from typing import Annotated

import torch
from torch import Tensor

from gantoolkit.plugins import (
    AdversarialLossBlock,
    Batch,
    Direction,
    DiscriminatorBlock,
    GeneratorBlock,
    ImageLossBlock,
    Pairing,
    Phase,
    Shared,
    SystemContext,
)
from gantoolkit.registry import Effect
from gantoolkit.systems.objectives import (
    DirectionName,
    Objective,
    Term,
    Translation,
    Weight,
    observe_logits,
    penalty,
    run_batched,
)


class Pix2Pix:
    """One generator, G_AB, and one discriminator, D, which judges an image together with its translation.

    In each step the discriminator is trained first, and the updated discriminator scores the generator (§3.3).

    Args:
        context: Channels and seed.
        generator: Builds the generator.
        discriminator: Builds the discriminator; it sees both images, concatenated along their channels.
        adversarial_loss: Scores logits.
        image_loss: Distance between a translation and its ground truth.
        adversarial_weight: Weight of the adversarial term.
        image_weight: Weight of the distance (the paper: 100).
        direction: The direction of translation; with `B2A` the generator is G_BA.
        batched: Pass real and fake pairs through the discriminator as one batch, where the result is the same.
    """

    pairing: Pairing = "paired"

    def __init__(
        self,
        context: SystemContext,
        *,
        generator: GeneratorBlock,
        discriminator: DiscriminatorBlock,
        adversarial_loss: AdversarialLossBlock,
        image_loss: ImageLossBlock,
        adversarial_weight: Weight = 1.0,
        image_weight: Weight = 100.0,
        direction: DirectionName = "A2B",
        batched: Annotated[bool, Effect("chance")] = True,
    ) -> None:
        way = Direction(direction)
        self.source, self.target, self.batched = way.source, way.target, batched
        self.fake, G = f"fake_{way.target}", f"G_{way.source}{way.target}"
        gan, distance = adversarial_loss(), image_loss()
        self.adversarial = gan
        self.objective = Objective(
            terms=[
                Term(
                    f"adversarial_{way.target}",
                    adversarial_weight,
                    lambda D, image, fake: gan.generator(D(_pair(image, fake))),
                    needs=("D", way.source, self.fake),
                ),
                Term(f"image_{way.target}", image_weight, distance, needs=(self.fake, way.target)),
            ],
            translations=[Translation(self.fake, G, way.source)],
        )
        if not self.objective.terms:
            raise ValueError("adversarial_weight and image_weight are both 0: there is nothing to learn")
        channels = {"A": context.channels_A, "B": context.channels_B}
        self.networks = {G: generator(channels[way.source], channels[way.target])}
        self.directions = {direction: self.networks[G]}
        self.phases = [Phase("G", (G,), self.generator_losses)]
        if "D" in self.objective.needs:
            self.networks["D"] = discriminator(channels["A"] + channels["B"])
            self.phases.insert(0, Phase("D", ("D",), self.discriminator_losses))
        self.pools = {}

    def forward(self, batch: Batch) -> Shared:
        """The translation, which both phases use."""
        return self.objective.translate(self.networks, batch)

    def discriminator_losses(self, batch: Batch, shared: Shared) -> dict[str, Tensor]:
        """Real pairs against pairs of an image and its translation (§3.1, equation 1)."""
        D, source = self.networks["D"], batch[self.source]
        fake, real = _pair(source, shared[self.fake].detach()), _pair(source, batch[self.target])
        fake_logits, real_logits = run_batched(D, [fake, real], batched=self.batched)
        observe_logits(D, real_logits, fake_logits)
        real_term = 0.5 * self.adversarial.real(real_logits)
        return {
            "D_fake": 0.5 * self.adversarial.fake(fake_logits),
            "D_real": real_term + penalty(self.adversarial, D, real, fake),
        }

    def generator_losses(self, batch: Batch, shared: Shared) -> dict[str, Tensor]:
        """The adversarial term, and the distance from the ground truth (§3.1, equation 4)."""
        return self.objective.losses(self.networks, {**batch, **shared})

    def sample(self, batch: Batch) -> dict[str, Tensor]:
        """The image, its translation, and the ground truth."""
        source, target = batch[self.source], batch[self.target]
        fake = next(iter(self.directions.values()))(source)
        return {f"real_{self.source}": source, self.fake: fake, f"real_{self.target}": target}


def _pair(image: Tensor, translation: Tensor) -> Tensor:
    return torch.cat([image, translation], dim=1)

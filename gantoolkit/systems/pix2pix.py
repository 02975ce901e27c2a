"""pix2pix: paired translation with a conditional discriminator (Isola et al. 2017)."""

import torch
from torch import Tensor

from gantoolkit.plugins import (
    AdversarialLossBlock,
    Batch,
    DiscriminatorBlock,
    GeneratorBlock,
    ImageLossBlock,
    Pairing,
    Phase,
    Setting,
    Shared,
)
from gantoolkit.systems.terms import Direction, Pass, Weight, penalty, run_passes, tell_logits


class Pix2Pix:
    """One generator, G_AB, and one discriminator, D, that judges an image together with its translation.

    The discriminator learns first in each step, and the generator is judged by what it has become (§3.3).

    Args:
        setting: Channels and seed.
        generator: Makes the generator.
        discriminator: Makes the discriminator; it sees both images, their channels concatenated.
        adversarial_loss: How logits are judged.
        image_loss: Distance of a translation from the truth.
        adversarial_weight: Weight of the adversarial term.
        image_weight: Weight of the distance (the paper: 100).
        direction: From which domain to which it learns to translate; with `B2A` the generator is G_BA.
        batched: Pass real and fake pairs through the discriminator as one batch, where that changes nothing.
    """

    pairing: Pairing = "paired"

    def __init__(
        self,
        setting: Setting,
        *,
        generator: GeneratorBlock,
        discriminator: DiscriminatorBlock,
        adversarial_loss: AdversarialLossBlock,
        image_loss: ImageLossBlock,
        adversarial_weight: Weight = 1.0,
        image_weight: Weight = 100.0,
        direction: Direction = "A2B",
        batched: bool = True,
    ) -> None:
        self.adversarial = adversarial_loss()
        self.distance = image_loss()
        self.adversarial_weight = adversarial_weight
        self.image_weight = image_weight
        self.batched = batched
        if not (adversarial_weight or image_weight):
            raise ValueError("adversarial_weight and image_weight are both 0: there is nothing to learn")

        self.source, self.target = direction.split("2")
        channels = {"A": setting.channels_A, "B": setting.channels_B}
        self.G = generator(channels[self.source], channels[self.target])
        name = f"G_{self.source}{self.target}"
        self.networks = {name: self.G}
        self.phases = [Phase("G", (name,), self.generator_losses)]
        if adversarial_weight:
            self.networks["D"] = discriminator(setting.channels_A + setting.channels_B)
            self.phases.insert(0, Phase("D", ("D",), self.discriminator_losses))
        self.directions = {direction: self.G}
        self.pools = {}

    def forward(self, batch: Batch) -> Shared:
        """The translation, once for both phases."""
        return {"fake": self.G(batch[self.source])}

    def discriminator_losses(self, batch: Batch, shared: Shared) -> dict[str, Tensor]:
        """Real pairs against pairs of an image and its translation (§3.1, equation 1)."""
        judge, source = self.networks["D"], batch[self.source]
        pairs = {"real": _pair(source, batch[self.target]), "fake": _pair(source, shared["fake"].detach())}
        logits = run_passes([Pass("fake", judge, "fake"), Pass("real", judge, "real")], pairs, batched=self.batched)
        tell_logits(judge, logits["real"], logits["fake"])
        real_term = 0.5 * self.adversarial.real(logits["real"])
        return {
            "D_fake": 0.5 * self.adversarial.fake(logits["fake"]),
            "D_real": real_term + penalty(self.adversarial, judge, pairs["real"], pairs["fake"]),
        }

    def generator_losses(self, batch: Batch, shared: Shared) -> dict[str, Tensor]:
        """The adversarial term and the distance from the truth (§3.1, equation 4)."""
        losses: dict[str, Tensor] = {}
        if self.adversarial_weight:
            logits = self.networks["D"](_pair(batch[self.source], shared["fake"]))
            losses[f"adversarial_{self.target}"] = self.adversarial_weight * self.adversarial.generator(logits)
        if self.image_weight:
            losses[f"image_{self.target}"] = self.image_weight * self.distance(shared["fake"], batch[self.target])
        return losses

    def sample(self, batch: Batch) -> dict[str, Tensor]:
        """The image, its translation, and the truth."""
        source, target = self.source, self.target
        fake = self.G(batch[source])
        return {f"real_{source}": batch[source], f"fake_{target}": fake, f"real_{target}": batch[target]}


def _pair(image: Tensor, translation: Tensor) -> Tensor:
    return torch.cat([image, translation], dim=1)

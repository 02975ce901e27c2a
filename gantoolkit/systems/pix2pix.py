"""pix2pix: paired translation with a conditional discriminator (Isola et al. 2017)."""

from typing import Literal

import torch
from torch import Tensor

from gantoolkit.plugins import (
    AdversarialLossBlock,
    Batch,
    DiscriminatorBlock,
    GeneratorBlock,
    ImageLossBlock,
    Phase,
    Setting,
    Shared,
)
from gantoolkit.systems.terms import Pass, Weight, penalty, run_passes


class Pix2Pix:
    """One generator, G_AB, and one discriminator, D, that judges an image of A together with one of B.

    The discriminator learns first in each step, and the generator is judged by what it has become (§3.3).

    Args:
        setting: Channels and seed.
        generator: Makes the generator.
        discriminator: Makes the discriminator; it sees both images, their channels concatenated.
        adversarial_loss: How logits are judged.
        image_loss: Distance of a translation from the truth.
        adversarial_weight: Weight of the adversarial term.
        image_weight: Weight of the distance (the paper: 100).
        batched: Pass real and fake pairs through the discriminator as one batch, where that changes nothing.
    """

    pairing: Literal["paired"] = "paired"

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
        batched: bool = True,
    ) -> None:
        self.adversarial = adversarial_loss()
        self.distance = image_loss()
        self.adversarial_weight = adversarial_weight
        self.image_weight = image_weight
        self.batched = batched
        if not (adversarial_weight or image_weight):
            raise ValueError("adversarial_weight and image_weight are both 0: there is nothing to learn")

        self.G_AB = generator(setting.channels_A, setting.channels_B)
        self.networks = {"G_AB": self.G_AB}
        self.phases = [Phase("G", ("G_AB",), self.generator_losses)]
        if adversarial_weight:
            self.networks["D"] = discriminator(setting.channels_A + setting.channels_B)
            self.phases.insert(0, Phase("D", ("D",), self.discriminator_losses))
        self.directions = {"A2B": "G_AB"}
        self.pools = {}

    def forward(self, batch: Batch) -> Shared:
        """The translation, once for both phases."""
        return {"fake_B": self.G_AB(batch["A"])}

    def discriminator_losses(self, batch: Batch, shared: Shared) -> dict[str, Tensor]:
        """Real pairs against pairs of an image and its translation (§3.1, equation 1)."""
        judge = self.networks["D"]
        pairs = {"real": _pair(batch["A"], batch["B"]), "fake": _pair(batch["A"], shared["fake_B"].detach())}
        logits = run_passes([Pass("fake", judge, "fake"), Pass("real", judge, "real")], pairs, batched=self.batched)
        real_term = 0.5 * self.adversarial.real(logits["real"])
        return {
            "D_fake": 0.5 * self.adversarial.fake(logits["fake"]),
            "D_real": real_term + penalty(self.adversarial, judge, pairs["real"], pairs["fake"]),
        }

    def generator_losses(self, batch: Batch, shared: Shared) -> dict[str, Tensor]:
        """The adversarial term and the distance from the truth (§3.1, equation 4)."""
        losses: dict[str, Tensor] = {}
        if self.adversarial_weight:
            logits = self.networks["D"](_pair(batch["A"], shared["fake_B"]))
            losses["adversarial_B"] = self.adversarial_weight * self.adversarial.generator(logits)
        if self.image_weight:
            losses["image_B"] = self.image_weight * self.distance(shared["fake_B"], batch["B"])
        return losses

    def sample(self, batch: Batch) -> dict[str, Tensor]:
        """The image, its translation, and the truth."""
        return {"real_A": batch["A"], "fake_B": self.G_AB(batch["A"]), "real_B": batch["B"]}


def _pair(A: Tensor, B: Tensor) -> Tensor:
    return torch.cat([A, B], dim=1)

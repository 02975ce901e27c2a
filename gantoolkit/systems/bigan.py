"""BiGAN / ALI: two mappings learnt by one discriminator of pairs (Donahue et al. 2017; Dumoulin et al. 2017).

The papers learn a generator from a latent z and an encoder back to it. For translation, an image of B takes the latent's
place, as in the comparison of Zhu et al. 2017, §5.1.1.
"""

import torch
from torch import Tensor

from gantoolkit.plugins import (
    AdversarialLossBlock,
    Batch,
    DiscriminatorBlock,
    GeneratorBlock,
    ImagePoolBlock,
    Pairing,
    Phase,
    Setting,
    Shared,
)
from gantoolkit.systems.terms import Weight, pool_generator, tell_apart


class BiGAN:
    """Two generators, G_AB and G_BA, and one discriminator, D, that tells (A, G_AB(A)) from (G_BA(B), B).

    There is no cycle term: where D cannot tell the two kinds of pairs apart, the generators invert each other (theorem 2 of
    Donahue et al. 2017). The discriminator learns first in each step.

    Args:
        setting: Channels and seed.
        generator: Makes both generators.
        discriminator: Makes the discriminator; it sees an image of A and one of B, their channels concatenated.
        adversarial_loss: How logits are judged. Pairs with a real image of A are the "real" ones.
        image_pool: Past pairs of both kinds for the discriminator.
        adversarial_weight: Weight of both generators' terms.
        batched: Pass both kinds of pairs through the discriminator as one batch: the same result, sooner.
    """

    pairing: Pairing = "unpaired"

    def __init__(
        self,
        setting: Setting,
        *,
        generator: GeneratorBlock,
        discriminator: DiscriminatorBlock,
        adversarial_loss: AdversarialLossBlock,
        image_pool: ImagePoolBlock,
        adversarial_weight: Weight = 1.0,
        batched: bool = True,
    ) -> None:
        if not adversarial_weight:
            raise ValueError("adversarial_weight is 0: there is nothing to learn")
        a, b = setting.channels_A, setting.channels_B
        self.adversarial = adversarial_loss()
        self.adversarial_weight = adversarial_weight
        self.batched = batched
        self.G_AB, self.G_BA, self.D = generator(a, b), generator(b, a), discriminator(a + b)
        self.networks = {"G_AB": self.G_AB, "G_BA": self.G_BA, "D": self.D}
        self.directions = {"A2B": self.G_AB, "B2A": self.G_BA}
        self.pools = {name: image_pool(pool_generator(setting, name)) for name in ("from_A", "from_B")}
        self.phases = [
            Phase("D", ("D",), self.discriminator_losses),
            Phase("G", ("G_AB", "G_BA"), self.generator_losses),
        ]

    def forward(self, batch: Batch) -> Shared:
        """Both kinds of pairs (N, channels_A + channels_B, H, W), each by the domain of its real image."""
        A, B = batch["A"], batch["B"]
        return {"from_A": torch.cat([A, self.G_AB(A)], dim=1), "from_B": torch.cat([self.G_BA(B), B], dim=1)}

    def discriminator_losses(self, batch: Batch, shared: Shared) -> dict[str, Tensor]:
        """Pairs that started from A against pairs that started from B (Donahue et al. 2017, equation 2)."""
        from_A, from_B = (self.pools[name](shared[name]) for name in ("from_A", "from_B"))
        return {"D": tell_apart(self.adversarial, self.D, from_A, from_B, batched=self.batched)}

    def generator_losses(self, batch: Batch, shared: Shared) -> dict[str, Tensor]:
        """Each generator wants its pairs to be taken for the other kind (the inverse objective, §3.4 there)."""
        return {
            "adversarial_B": self.adversarial_weight * self.adversarial.fake(self.D(shared["from_A"])),
            "adversarial_A": self.adversarial_weight * self.adversarial.generator(self.D(shared["from_B"])),
        }

    def sample(self, batch: Batch) -> dict[str, Tensor]:
        """Both directions: the real image, its translation, and the way back, which nothing asked for."""
        A, B = batch["A"], batch["B"]
        fake_B, fake_A = self.G_AB(A), self.G_BA(B)
        there = {"real_A": A, "fake_B": fake_B, "rec_A": self.G_BA(fake_B)}
        return {**there, "real_B": B, "fake_A": fake_A, "rec_B": self.G_AB(fake_A)}

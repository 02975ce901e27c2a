"""BiGAN / ALI: two mappings learned with one discriminator of pairs (Donahue et al. 2017; Dumoulin et al. 2017).

The papers learn a generator from a latent z and an encoder back to it. For translation, an image of B takes the latent's
place, as in the comparison of Zhu et al. 2017, §5.1.1.
"""

from typing import Annotated

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
    Shared,
    SystemContext,
)
from gantoolkit.registry import Effect
from gantoolkit.systems.objectives import Objective, Term, Translation, Weight, discriminator_loss, pool_generator


class BiGAN:
    """Two generators, G_AB and G_BA, and one discriminator, D, which distinguishes (A, G_AB(A)) from (G_BA(B), B).

    There is no cycle term: where D cannot distinguish the two kinds of pairs, the generators invert each other (theorem 2 of
    Donahue et al. 2017). In each step the discriminator is trained first.

    Args:
        context: Channels and seed.
        generator: Builds both generators.
        discriminator: Builds the discriminator; it sees an image of A and one of B, concatenated along their channels.
        adversarial_loss: Scores logits. Pairs with a real image of A are the "real" ones.
        image_pool: Buffer of past pairs of both kinds for the discriminator.
        adversarial_weight: Weight of both generators' terms.
        batched: Pass both kinds of pairs through the discriminator as one batch: the same result, faster.
    """

    pairing: Pairing = "unpaired"

    def __init__(
        self,
        context: SystemContext,
        *,
        generator: GeneratorBlock,
        discriminator: DiscriminatorBlock,
        adversarial_loss: AdversarialLossBlock,
        image_pool: ImagePoolBlock,
        adversarial_weight: Weight = 1.0,
        batched: Annotated[bool, Effect("chance")] = True,
    ) -> None:
        if not adversarial_weight:
            raise ValueError("adversarial_weight is 0: there is nothing to learn")
        gan = adversarial_loss()
        self.adversarial, self.batched = gan, batched
        # Each generator wants its pairs to be taken for the other kind (the inverse objective, §3.4 of Donahue et al. 2017).
        self.objective = Objective(
            terms=[
                Term("adversarial_B", adversarial_weight, lambda D, A, fake_B: gan.fake(D(_pair(A, fake_B)))),
                Term("adversarial_A", adversarial_weight, lambda D, fake_A, B: gan.generator(D(_pair(fake_A, B)))),
            ],
            translations=[Translation("fake_B", "G_AB", "A"), Translation("fake_A", "G_BA", "B")],
        )
        a, b = context.channels_A, context.channels_B
        self.networks = {"G_AB": generator(a, b), "G_BA": generator(b, a), "D": discriminator(a + b)}
        self.directions = {"A2B": self.networks["G_AB"], "B2A": self.networks["G_BA"]}
        self.pools = {name: image_pool(pool_generator(context, name)) for name in ("from_A", "from_B")}
        self.phases = [
            Phase("D", ("D",), self.discriminator_losses),
            Phase("G", ("G_AB", "G_BA"), self.generator_losses),
        ]

    def forward(self, batch: Batch) -> Shared:
        """Both translations, which both phases use."""
        return self.objective.translate(self.networks, batch)

    def discriminator_losses(self, batch: Batch, shared: Shared) -> dict[str, Tensor]:
        """Pairs that started from A against pairs that started from B (Donahue et al. 2017, equation 2)."""
        from_A = self.pools["from_A"](_pair(batch["A"], shared["fake_B"]))
        from_B = self.pools["from_B"](_pair(shared["fake_A"], batch["B"]))
        return {"D": discriminator_loss(self.adversarial, self.networks["D"], from_A, from_B, batched=self.batched)}

    def generator_losses(self, batch: Batch, shared: Shared) -> dict[str, Tensor]:
        """The adversarial terms."""
        return self.objective.losses(self.networks, {**batch, **shared})

    def sample(self, batch: Batch) -> dict[str, Tensor]:
        """For both directions: the real image, its translation, and its reconstruction, for which there is no term."""
        A, B = batch["A"], batch["B"]
        G_AB, G_BA = self.networks["G_AB"], self.networks["G_BA"]
        fake_B, fake_A = G_AB(A), G_BA(B)
        images = {"real_A": A, "fake_B": fake_B, "rec_A": G_BA(fake_B)}
        return {**images, "real_B": B, "fake_A": fake_A, "rec_B": G_AB(fake_A)}


def _pair(image_A: Tensor, image_B: Tensor) -> Tensor:
    return torch.cat([image_A, image_B], dim=1)

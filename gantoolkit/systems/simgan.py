"""SimGAN: an adversarial loss and a penalty on change (Shrivastava et al. 2017).

The distance that measures change is a block: on pixels it is SimGAN's self-regularization, on deep features the baseline
"feature loss + GAN" of Zhu et al. 2017, §5.1.1.
"""

from typing import Annotated

from torch import Tensor

from gantoolkit.plugins import (
    AdversarialLossBlock,
    Batch,
    Direction,
    DiscriminatorBlock,
    GeneratorBlock,
    ImageLossBlock,
    ImagePoolBlock,
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
    discriminator_loss,
    pool_generator,
)


class SimGAN:
    """One generator, G_AB, and one discriminator, D_B; there is no way back.

    In each step the discriminator is trained first, and the updated discriminator scores the generator.

    Args:
        context: Channels and seed.
        generator: Builds the generator.
        discriminator: Builds the discriminator; it sees images of the target domain.
        adversarial_loss: Scores logits.
        self_regularization_loss: Distance between a translation and its input (the paper's equation 5).
        image_pool: Buffer of past fakes for the discriminator (§2.3).
        adversarial_weight: Weight of the adversarial term.
        self_regularization_weight: Weight of the distance.
        direction: The direction of translation; with `B2A` the networks are G_BA and D_A.
        batched: Pass real images and fakes through the discriminator as one batch: the same result, faster.

    Raises:
        ValueError: When the distance has a weight and the domains differ in channels, or both weights are 0.
    """

    pairing: Pairing = "unpaired"

    def __init__(
        self,
        context: SystemContext,
        *,
        generator: GeneratorBlock,
        discriminator: DiscriminatorBlock,
        adversarial_loss: AdversarialLossBlock,
        self_regularization_loss: ImageLossBlock,
        image_pool: ImagePoolBlock,
        adversarial_weight: Weight = 1.0,
        self_regularization_weight: Weight = 10.0,
        direction: DirectionName = "A2B",
        batched: Annotated[bool, Effect("chance")] = True,
    ) -> None:
        channels = {"A": context.channels_A, "B": context.channels_B}
        if channels["A"] != channels["B"] and self_regularization_weight:
            raise ValueError(
                f"self_regularization_weight is {self_regularization_weight}, but A has {channels['A']} channels and B has "
                f"{channels['B']}, so an image cannot be compared with its translation; give data.channels_A and "
                "data.channels_B one value"
            )
        way = Direction(direction)
        self.source, self.target, self.batched = way.source, way.target, batched
        self.fake, self.D, G = f"fake_{way.target}", f"D_{way.target}", f"G_{way.source}{way.target}"
        gan, distance = adversarial_loss(), self_regularization_loss()
        self.adversarial = gan
        self.objective = Objective(
            terms=[
                Term(
                    f"adversarial_{way.target}",
                    adversarial_weight,
                    lambda D, fake: gan.generator(D(fake)),
                    needs=(self.D, self.fake),
                ),
                Term("self_regularization", self_regularization_weight, distance, needs=(self.fake, way.source)),
            ],
            translations=[Translation(self.fake, G, way.source)],
        )
        if not self.objective.terms:
            raise ValueError("adversarial_weight and self_regularization_weight are both 0: there is nothing to learn")
        self.networks = {G: generator(channels[way.source], channels[way.target])}
        self.directions, self.pools = {direction: self.networks[G]}, {}
        self.phases = [Phase("G", (G,), self.generator_losses)]
        if self.D in self.objective.needs:
            self.networks[self.D] = discriminator(channels[way.target])
            self.pools[self.fake] = image_pool(pool_generator(context, self.fake))
            self.phases.insert(0, Phase("D", (self.D,), self.discriminator_losses))

    def forward(self, batch: Batch) -> Shared:
        """The translation, which both phases use."""
        return self.objective.translate(self.networks, batch)

    def discriminator_losses(self, batch: Batch, shared: Shared) -> dict[str, Tensor]:
        """Real images of the target domain against translations of this step and of earlier ones."""
        D, real, fake = self.networks[self.D], batch[self.target], self.pools[self.fake](shared[self.fake])
        return {self.D: discriminator_loss(self.adversarial, D, real, fake, batched=self.batched)}

    def generator_losses(self, batch: Batch, shared: Shared) -> dict[str, Tensor]:
        """The adversarial term and the self-regularization (the paper's equation 4)."""
        return self.objective.losses(self.networks, {**batch, **shared})

    def sample(self, batch: Batch) -> dict[str, Tensor]:
        """The image and its translation, and an image of the target domain for comparison."""
        source, target = batch[self.source], batch[self.target]
        fake = next(iter(self.directions.values()))(source)
        return {f"real_{self.source}": source, self.fake: fake, f"real_{self.target}": target}

"""SimGAN: an adversarial loss, and a penalty on change (Shrivastava et al. 2017).

The distance that measures change is a block: on pixels it is SimGAN's self-regularisation, on deep features the baseline
"feature loss + GAN" of Zhu et al. 2017, §5.1.1.
"""

from torch import Tensor

from gantoolkit.plugins import (
    AdversarialLossBlock,
    Batch,
    DiscriminatorBlock,
    GeneratorBlock,
    ImageLossBlock,
    ImagePoolBlock,
    Pairing,
    Phase,
    Setting,
    Shared,
)
from gantoolkit.systems.terms import Direction, Weight, pool_generator, tell_apart


class SimGAN:
    """One generator, G_AB, and one discriminator, D_B; no way back.

    The discriminator learns first in each step, and the generator is judged by what it has become.

    Args:
        setting: Channels and seed.
        generator: Makes the generator.
        discriminator: Makes the discriminator; it sees images of the target domain.
        adversarial_loss: How logits are judged.
        self_regularization_loss: Distance of a translation from the image it was made from (the paper's equation 5).
        image_pool: Past fakes for the discriminator (§2.3).
        adversarial_weight: Weight of the adversarial term.
        self_regularization_weight: Weight of the distance.
        direction: From which domain to which it learns to translate; with `B2A` the networks are G_BA and D_A.
        batched: Pass real images and fakes through the discriminator as one batch: the same result, sooner.

    Raises:
        ValueError: When the domains differ in channels, so that there is no distance between an image and its translation,
            or both weights are 0.
    """

    pairing: Pairing = "unpaired"

    def __init__(
        self,
        setting: Setting,
        *,
        generator: GeneratorBlock,
        discriminator: DiscriminatorBlock,
        adversarial_loss: AdversarialLossBlock,
        self_regularization_loss: ImageLossBlock,
        image_pool: ImagePoolBlock,
        adversarial_weight: Weight = 1.0,
        self_regularization_weight: Weight = 10.0,
        direction: Direction = "A2B",
        batched: bool = True,
    ) -> None:
        channels = {"A": setting.channels_A, "B": setting.channels_B}
        if channels["A"] != channels["B"] and self_regularization_weight:
            raise ValueError(
                f"self_regularization_weight is {self_regularization_weight}, but an image of A ({channels['A']} channels) "
                f"has no distance from one of B ({channels['B']} channels); set data.channels_A and data.channels_B alike"
            )
        if not (adversarial_weight or self_regularization_weight):
            raise ValueError("adversarial_weight and self_regularization_weight are both 0: there is nothing to learn")
        self.adversarial, self.distance = adversarial_loss(), self_regularization_loss()
        self.adversarial_weight = adversarial_weight
        self.self_regularization_weight = self_regularization_weight
        self.batched = batched
        self.source, self.target = direction.split("2")
        self.G = generator(channels[self.source], channels[self.target])
        self.fake = f"fake_{self.target}"
        G = f"G_{self.source}{self.target}"
        self.networks, self.directions, self.pools = {G: self.G}, {direction: self.G}, {}
        self.phases = [Phase("G", (G,), self.generator_losses)]
        if adversarial_weight:
            self.D = f"D_{self.target}"
            self.networks[self.D] = discriminator(channels[self.target])
            self.pools[self.fake] = image_pool(pool_generator(setting, self.fake))
            self.phases.insert(0, Phase("D", (self.D,), self.discriminator_losses))

    def forward(self, batch: Batch) -> Shared:
        """The translation, once for both phases."""
        return {self.fake: self.G(batch[self.source])}

    def discriminator_losses(self, batch: Batch, shared: Shared) -> dict[str, Tensor]:
        """Real images of the target domain against translations of this step and of earlier ones."""
        real, fake = batch[self.target], self.pools[self.fake](shared[self.fake])
        return {self.D: tell_apart(self.adversarial, self.networks[self.D], real, fake, batched=self.batched)}

    def generator_losses(self, batch: Batch, shared: Shared) -> dict[str, Tensor]:
        """To be taken for real, and to change little (the paper's equation 4)."""
        losses: dict[str, Tensor] = {}
        fake, source = shared[self.fake], batch[self.source]
        if self.adversarial_weight:
            judged = self.adversarial.generator(self.networks[self.D](fake))
            losses[f"adversarial_{self.target}"] = self.adversarial_weight * judged
        if self.self_regularization_weight:
            losses["self_regularization"] = self.self_regularization_weight * self.distance(fake, source)
        return losses

    def sample(self, batch: Batch) -> dict[str, Tensor]:
        """The image and its translation, and an image of the target domain to compare with."""
        source, target = self.source, self.target
        fake = self.G(batch[source])
        return {f"real_{source}": batch[source], f"fake_{target}": fake, f"real_{target}": batch[target]}

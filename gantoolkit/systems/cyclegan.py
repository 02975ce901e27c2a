"""CycleGAN: unpaired translation by adversarial and cycle-consistency losses (Zhu et al. 2017)."""

from typing import Literal

import torch
from torch import Tensor

from gantoolkit.plugins import (
    AdversarialLossBlock,
    Batch,
    DiscriminatorBlock,
    GeneratorBlock,
    ImageLossBlock,
    ImagePoolBlock,
    Phase,
    Setting,
    Shared,
)
from gantoolkit.seeds import derive_seed
from gantoolkit.systems.terms import DomainWeight, Pass, penalty, per_domain, run_passes


class CycleGAN:
    """Two generators, G_AB and G_BA, and two discriminators, D_A and D_B, that judge domains A and B.

    The objective is a sum of weighted terms (§3, equation 3). A term of weight 0 is left out, and what no other term asks
    for is neither built nor computed; so the paper's ablations are settings of these weights.

    Args:
        setting: Channels and seed.
        generator: Makes both generators.
        discriminator: Makes both discriminators.
        adversarial_loss: How logits are judged.
        cycle_loss: Distance of an image from its way there and back.
        identity_loss: Distance of an image from its translation into its own domain.
        image_pool: Past fakes for the discriminators.
        adversarial_weight: Weight of the adversarial terms; one number, or one for fakes in A and one for fakes in B.
        cycle_weight: Weight of the cycle terms, the paper's λ; one number, or one for A → B → A (forward) and one for
            B → A → B (backward).
        identity_weight: Weight of the identity terms (§5.2; the paper takes 0.5·λ for paintings); one number, or one for
            A and one for B.
        batched: Pass independent images through one generator, or discriminator, as one batch: the same result, sooner.

    Raises:
        ValueError: When an identity term is asked for and the domains differ in channels.
    """

    pairing: Literal["unpaired"] = "unpaired"

    def __init__(
        self,
        setting: Setting,
        *,
        generator: GeneratorBlock,
        discriminator: DiscriminatorBlock,
        adversarial_loss: AdversarialLossBlock,
        cycle_loss: ImageLossBlock,
        identity_loss: ImageLossBlock,
        image_pool: ImagePoolBlock,
        adversarial_weight: DomainWeight = 1.0,
        cycle_weight: DomainWeight = 10.0,
        identity_weight: DomainWeight = 0.0,
        batched: bool = True,
    ) -> None:
        a, b = setting.channels_A, setting.channels_B
        self.adversarial_A, self.adversarial_B = per_domain(adversarial_weight)
        self.cycle_A, self.cycle_B = per_domain(cycle_weight)
        self.identity_A, self.identity_B = per_domain(identity_weight)
        if a != b and (self.identity_A or self.identity_B):
            raise ValueError(
                f"identity_weight is {identity_weight}, but an image of A ({a} channels) can be its own translation into "
                f"B ({b} channels) only if the channels agree; set identity_weight = 0, or data.channels_A and "
                "data.channels_B alike"
            )
        if not any(
            [self.adversarial_A, self.adversarial_B, self.cycle_A, self.cycle_B, self.identity_A, self.identity_B]
        ):
            raise ValueError(
                "adversarial_weight, cycle_weight and identity_weight are all 0: there is nothing to learn"
            )
        self.adversarial = adversarial_loss()
        self.cycle = cycle_loss()
        self.identity = identity_loss()
        self.batched = batched

        self.G_AB, self.G_BA = generator(a, b), generator(b, a)
        self.networks = {"G_AB": self.G_AB, "G_BA": self.G_BA}
        self.directions = {"A2B": "G_AB", "B2A": "G_BA"}
        self.phases = [Phase("G", ("G_AB", "G_BA"), self.generator_losses)]
        judged = [("A", a)] * bool(self.adversarial_A) + [("B", b)] * bool(self.adversarial_B)
        self.networks |= {f"D_{domain}": discriminator(channels) for domain, channels in judged}
        self.pools = {f"fake_{domain}": image_pool(_pool_generator(setting, domain)) for domain, _ in judged}
        if judged:
            self.phases.append(Phase("D", tuple(f"D_{domain}" for domain, _ in judged), self.discriminator_losses))

    def forward(self, batch: Batch) -> Shared:
        """All that the generators make: fakes, reconstructions, identities, as far as a term asks for them."""
        wanted = [
            (self.adversarial_B or self.cycle_A, Pass("fake_B", self.G_AB, "A")),
            (self.cycle_A, Pass("rec_A", self.G_BA, "fake_B")),
            (self.adversarial_A or self.cycle_B, Pass("fake_A", self.G_BA, "B")),
            (self.cycle_B, Pass("rec_B", self.G_AB, "fake_A")),
            (self.identity_B, Pass("idt_B", self.G_AB, "B")),
            (self.identity_A, Pass("idt_A", self.G_BA, "A")),
        ]
        return run_passes([each for asked, each in wanted if asked], batch, batched=self.batched)

    def generator_losses(self, batch: Batch, shared: Shared) -> dict[str, Tensor]:
        """Equation 3 as the generators see it; term by term, with its weight."""
        A, B = batch["A"], batch["B"]
        losses: dict[str, Tensor] = {}
        for domain, weight in (("A", self.adversarial_A), ("B", self.adversarial_B)):
            if weight:
                logits = self.networks[f"D_{domain}"](shared[f"fake_{domain}"])
                losses[f"adversarial_{domain}"] = weight * self.adversarial.generator(logits)
        if self.cycle_A:
            losses["cycle_A"] = self.cycle_A * self.cycle(shared["rec_A"], A)
        if self.cycle_B:
            losses["cycle_B"] = self.cycle_B * self.cycle(shared["rec_B"], B)
        if self.identity_A:
            losses["identity_A"] = self.identity_A * self.identity(shared["idt_A"], A)
        if self.identity_B:
            losses["identity_B"] = self.identity_B * self.identity(shared["idt_B"], B)
        return losses

    def discriminator_losses(self, batch: Batch, shared: Shared) -> dict[str, Tensor]:
        """Each discriminator tells real images of its domain from fakes of this step and of earlier ones.

        The objective is divided by two, which slows the discriminators relative to the generators (appendix 7.1).
        """
        losses: dict[str, Tensor] = {}
        for name, pool in self.pools.items():
            domain = name.removeprefix("fake_")
            judge, images = self.networks[f"D_{domain}"], {"real": batch[domain], "fake": pool(shared[name])}
            logits = run_passes(
                [Pass("real", judge, "real"), Pass("fake", judge, "fake")], images, batched=self.batched
            )
            objective = 0.5 * (self.adversarial.real(logits["real"]) + self.adversarial.fake(logits["fake"]))
            losses[f"D_{domain}"] = objective + penalty(self.adversarial, judge, images["real"], images["fake"])
        return losses

    def sample(self, batch: Batch) -> dict[str, Tensor]:
        """Both directions: the real image, its translation, and the way back."""
        A, B = batch["A"], batch["B"]
        fake_B, fake_A = self.G_AB(A), self.G_BA(B)
        there = {"real_A": A, "fake_B": fake_B, "rec_A": self.G_BA(fake_B)}
        return {**there, "real_B": B, "fake_A": fake_A, "rec_B": self.G_AB(fake_A)}


def _pool_generator(setting: Setting, domain: str) -> torch.Generator:
    # On the CPU also where the default device is another: decisions are made on the host.
    return torch.Generator("cpu").manual_seed(derive_seed(setting.seed, "pool", domain))

"""CycleGAN: unpaired translation by adversarial and cycle-consistency losses (Zhu et al. 2017)."""

from functools import partial
from typing import Annotated

from torch import Tensor, nn

from gantoolkit.plugins import (
    AdversarialLossBlock,
    Batch,
    DiscriminatorBlock,
    GeneratorBlock,
    ImageLossBlock,
    ImagePool,
    ImagePoolBlock,
    Pairing,
    Phase,
    Shared,
    SystemContext,
)
from gantoolkit.registry import Effect
from gantoolkit.systems.objectives import (
    DomainWeight,
    Objective,
    Term,
    Translation,
    Weight,
    discriminator_loss,
    per_domain,
    pool_generator,
)


class CycleGAN:
    """Two generators, G_AB and G_BA, and two discriminators, D_A and D_B, which judge images of A and of B.

    G_AB is the paper's G, G_BA its F, A its X and B its Y. The generators minimize `objective`, a weighted sum of terms (§3,
    equation 3); the discriminators minimize `discriminator_objective`. A term of weight 0 is left out, and networks and images
    that no other term needs are neither built nor computed. The paper's ablations are therefore settings of these weights.

    Args:
        context: Channels and seed.
        generator: Builds both generators.
        discriminator: Builds all discriminators.
        adversarial_loss: Scores logits.
        cycle_loss: Distance between an image and its reconstruction.
        identity_loss: Distance between an image and its translation into its own domain.
        image_pool: Buffer of past fakes for the discriminators.
        adversarial_weight: Weight of the adversarial terms; one number, or one for fakes in A and one for fakes in B.
        cycle_weight: Weight of the cycle terms, the paper's λ; one number, or one for A → B → A (forward) and one for
            B → A → B (backward).
        identity_weight: Weight of the identity terms (§5.2; the paper uses 0.5·λ for paintings); one number, or one for
            A and one for B.
        adversarial_cycle_weight: Weight of further discriminators, D_rec_A and D_rec_B, which judge reconstructions (§3.2
            tries them in place of the distance); one number, or one for A and one for B.
        discriminator_factor: Factor on the loss of each discriminator. The paper divides it by two (appendix 7.1); the
            authors' first code did so only in the value that it printed.
        alternating: Use one optimizer per network, in the order G_AB, D_B, G_BA, D_A, where the step of each generator
            computes its own images, as in the authors' first code. Otherwise both generators are optimized in one step, then
            all discriminators.
        batched: Pass independent images through one network as one batch: the same result, faster.

    Raises:
        ValueError: When an identity term has a weight and the domains differ in channels, or all weights are 0.
    """

    pairing: Pairing = "unpaired"

    def __init__(
        self,
        context: SystemContext,
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
        adversarial_cycle_weight: DomainWeight = 0.0,
        discriminator_factor: Weight = 0.5,
        alternating: bool = False,
        batched: Annotated[bool, Effect("chance")] = True,
    ) -> None:
        a, b = context.channels_A, context.channels_B
        if a != b and any(per_domain(identity_weight)):
            raise ValueError(
                f"identity_weight is {identity_weight}, but A has {a} channels and B has {b}, so an image cannot be compared "
                "with its translation into its own domain; set identity_weight = 0, or give data.channels_A and "
                "data.channels_B one value"
            )
        gan, cycle, identity = adversarial_loss(), cycle_loss(), identity_loss()
        gan_A, gan_B = per_domain(adversarial_weight)
        gan_rec_A, gan_rec_B = per_domain(adversarial_cycle_weight)
        cycle_A, cycle_B = per_domain(cycle_weight)
        identity_A, identity_B = per_domain(identity_weight)
        self.objective = Objective(
            terms=[
                Term("adversarial_A", gan_A, lambda D_A, fake_A: gan.generator(D_A(fake_A))),
                Term("adversarial_B", gan_B, lambda D_B, fake_B: gan.generator(D_B(fake_B))),
                Term("adversarial_rec_A", gan_rec_A, lambda D_rec_A, rec_A: gan.generator(D_rec_A(rec_A))),
                Term("adversarial_rec_B", gan_rec_B, lambda D_rec_B, rec_B: gan.generator(D_rec_B(rec_B))),
                Term("cycle_A", cycle_A, lambda rec_A, A: cycle(rec_A, A)),
                Term("cycle_B", cycle_B, lambda rec_B, B: cycle(rec_B, B)),
                Term("identity_A", identity_A, lambda idt_A, A: identity(idt_A, A)),
                Term("identity_B", identity_B, lambda idt_B, B: identity(idt_B, B)),
            ],
            translations=[
                Translation("fake_B", "G_AB", "A"),
                Translation("rec_A", "G_BA", "fake_B"),
                Translation("fake_A", "G_BA", "B"),
                Translation("rec_B", "G_AB", "fake_A"),
                Translation("idt_B", "G_AB", "B"),
                Translation("idt_A", "G_BA", "A"),
            ],
        )
        if not self.objective.terms:
            raise ValueError(
                "adversarial_weight, adversarial_cycle_weight, cycle_weight and identity_weight are all 0: there is nothing "
                "to learn"
            )
        score = partial(discriminator_loss, gan, factor=discriminator_factor, batched=batched)
        self.pools: dict[str, ImagePool] = {}
        pools = self.pools
        scores = [
            Term("D_A", 1.0, lambda D_A, A, fake_A: score(D_A, A, pools["fake_A"](fake_A))),
            Term("D_B", 1.0, lambda D_B, B, fake_B: score(D_B, B, pools["fake_B"](fake_B))),
            Term("D_rec_A", 1.0, lambda D_rec_A, A, rec_A: score(D_rec_A, A, pools["rec_A"](rec_A))),
            Term("D_rec_B", 1.0, lambda D_rec_B, B, rec_B: score(D_rec_B, B, pools["rec_B"](rec_B))),
        ]
        # A discriminator is trained if a term of the generators needs it.
        self.discriminator_objective = Objective([term for term in scores if term.name in self.objective.needs])

        build = {"G_AB": lambda: generator(a, b), "G_BA": lambda: generator(b, a)}
        build |= {
            name: partial(discriminator, a if name.endswith("A") else b)
            for name in ("D_A", "D_B", "D_rec_A", "D_rec_B")
        }
        self.networks: dict[str, nn.Module] = {
            name: make() for name, make in build.items() if name in self.objective.needs
        }
        pairs = {"A2B": "G_AB", "B2A": "G_BA"}
        self.directions = {way: self.networks[name] for way, name in pairs.items() if name in self.networks}
        for term in self.discriminator_objective.terms:
            fake = term.needs[-1]  # the last parameter of its function
            pools[fake] = image_pool(pool_generator(context, fake))
        self.alternating, self.batched = alternating, batched
        self.phases = self._alternate() if alternating else self._join()

    def _join(self) -> list[Phase]:
        generators = tuple(name for name in ("G_AB", "G_BA") if name in self.networks)
        discriminators = tuple(term.name for term in self.discriminator_objective.terms)
        phases = [Phase("G", generators, partial(self.losses, self.objective))]
        if discriminators:
            phases.append(Phase("D", discriminators, partial(self.losses, self.discriminator_objective)))
        return phases

    def _alternate(self) -> list[Phase]:
        phases: list[Phase] = []
        for source, target in (("A", "B"), ("B", "A")):
            # The terms that do not depend on this generator: the other one's adversarial term and identity term.
            others = {f"adversarial_{source}", f"identity_{source}"}
            objective = self.objective.only(term.name for term in self.objective.terms if term.name not in others)
            scores = self.discriminator_objective.only([f"D_{target}", f"D_rec_{source}"])
            name = f"G_{source}{target}"
            if objective.terms:
                phases.append(Phase(name, (name,), partial(self.losses, objective)))
            if scores.terms:
                trained = tuple(term.name for term in scores.terms)
                phases.append(Phase(f"D_{target}", trained, partial(self.losses, scores)))
        return phases

    def forward(self, batch: Batch) -> Shared:
        """The translations that the terms need: fakes, reconstructions, identities."""
        return {} if self.alternating else self.objective.translate(self.networks, batch, batched=self.batched)

    def losses(self, objective: Objective, batch: Batch, shared: Shared) -> dict[str, Tensor]:
        """The terms of one phase, weighted."""
        if self.alternating:  # each generator's step computes its own images, which its discriminator then judges
            shared |= objective.translate(self.networks, batch, batched=self.batched)
        return objective.losses(self.networks, {**batch, **shared})

    def sample(self, batch: Batch) -> dict[str, Tensor]:
        """For each direction: the real image, its translation and, if there is a way back, its reconstruction."""
        images: dict[str, Tensor] = {}
        for source, target in (("A", "B"), ("B", "A")):
            forth, back = self.directions.get(f"{source}2{target}"), self.directions.get(f"{target}2{source}")
            images[f"real_{source}"] = batch[source]
            if forth is not None:
                images[f"fake_{target}"] = forth(batch[source])
                if back is not None:
                    images[f"rec_{source}"] = back(images[f"fake_{target}"])
        return images

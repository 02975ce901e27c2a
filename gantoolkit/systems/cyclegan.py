"""CycleGAN: unpaired translation by adversarial and cycle-consistency losses (Zhu et al. 2017)."""

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn

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
from gantoolkit.systems.terms import DomainWeight, Pass, Weight, per_domain, pool_generator, run_passes, tell_apart

# Each term of the objective, the images that it looks at, and those that these are made from.
_LOOKS_AT = {
    "adversarial_A": ("fake_A",),
    "adversarial_B": ("fake_B",),
    "adversarial_rec_A": ("fake_B", "rec_A"),
    "adversarial_rec_B": ("fake_A", "rec_B"),
    "cycle_A": ("fake_B", "rec_A"),
    "cycle_B": ("fake_A", "rec_B"),
    "identity_A": ("idt_A",),
    "identity_B": ("idt_B",),
}
# Each image, the generator that makes it, and from what; in the order of the official code.
_MADE_BY = {
    "fake_B": ("G_AB", "A"),
    "rec_A": ("G_BA", "fake_B"),
    "fake_A": ("G_BA", "B"),
    "rec_B": ("G_AB", "fake_A"),
    "idt_B": ("G_AB", "B"),
    "idt_A": ("G_BA", "A"),
}
# Each adversarial term, the image that is judged, and by whom.
_JUDGED = {
    "adversarial_A": ("fake_A", "D_A"),
    "adversarial_B": ("fake_B", "D_B"),
    "adversarial_rec_A": ("rec_A", "D_rec_A"),
    "adversarial_rec_B": ("rec_B", "D_rec_B"),
}


class CycleGAN:
    """Two generators, G_AB and G_BA, and two discriminators, D_A and D_B, that judge domains A and B.

    The objective is a sum of weighted terms (§3, equation 3). A term of weight 0 is left out, and what no other term asks
    for is neither built nor computed; so the paper's ablations are settings of these weights.

    Args:
        setting: Channels and seed.
        generator: Makes both generators.
        discriminator: Makes all discriminators.
        adversarial_loss: How logits are judged.
        cycle_loss: Distance of an image from its way there and back.
        identity_loss: Distance of an image from its translation into its own domain.
        image_pool: Past fakes for the discriminators.
        adversarial_weight: Weight of the adversarial terms; one number, or one for fakes in A and one for fakes in B.
        cycle_weight: Weight of the cycle terms, the paper's λ; one number, or one for A → B → A (forward) and one for
            B → A → B (backward).
        identity_weight: Weight of the identity terms (§5.2; the paper takes 0.5·λ for paintings); one number, or one for
            A and one for B.
        adversarial_cycle_weight: Weight of further discriminators, D_rec_A and D_rec_B, that tell images from their way there
            and back (§5.1.4 tries them in place of the distance); one number, or one for A and one for B.
        discriminator_factor: Factor on each discriminator's objective; the paper divides it by two (appendix 7.1), the
            authors' first code did so only in what it printed.
        alternating: One optimiser for each network, in the order G_AB, D_B, G_BA, D_A, each generator's step making its
            images anew, as the authors' first code does. Else both generators learn in one step, then all discriminators.
        batched: Pass independent images through one generator, or discriminator, as one batch: the same result, sooner.

    Raises:
        ValueError: When an identity term is asked for and the domains differ in channels, or all weights are 0.
    """

    pairing: Pairing = "unpaired"

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
        adversarial_cycle_weight: DomainWeight = 0.0,
        discriminator_factor: Weight = 0.5,
        alternating: bool = False,
        batched: bool = True,
    ) -> None:
        weights = {
            "adversarial": adversarial_weight,
            "adversarial_rec": adversarial_cycle_weight,
            "cycle": cycle_weight,
            "identity": identity_weight,
        }
        both = {
            f"{kind}_{x}": w for kind, weight in weights.items() for x, w in zip("AB", per_domain(weight), strict=True)
        }
        self.weights = {term: weight for term, weight in both.items() if weight}
        if not self.weights:
            raise ValueError(
                "adversarial_weight, adversarial_cycle_weight, cycle_weight and identity_weight are all 0: there is nothing "
                "to learn"
            )
        a, b = setting.channels_A, setting.channels_B
        if a != b and any(both[f"identity_{x}"] for x in "AB"):
            raise ValueError(
                f"identity_weight is {identity_weight}, but an image of A ({a} channels) can be its own translation into "
                f"B ({b} channels) only if the channels agree; set identity_weight = 0, or data.channels_A and "
                "data.channels_B alike"
            )
        self.adversarial, self.cycle, self.identity = adversarial_loss(), cycle_loss(), identity_loss()
        self.discriminator_factor = discriminator_factor
        self.batched = batched

        self.networks: dict[str, nn.Module] = {}
        self.directions: dict[str, nn.Module] = {}
        used = {_MADE_BY[image][0] for term in self.weights for image in _LOOKS_AT[term]}
        for name, direction, channels in (("G_AB", "A2B", (a, b)), ("G_BA", "B2A", (b, a))):
            if name in used:
                self.networks[name] = self.directions[direction] = generator(*channels)
        self.judges = {image: name for term, (image, name) in _JUDGED.items() if term in self.weights}
        self.networks |= {name: discriminator(a if name[-1] == "A" else b) for name in self.judges.values()}
        self.pools = {image: image_pool(pool_generator(setting, image)) for image in self.judges}
        self.alternating = alternating
        self.phases = self._alternate() if alternating else self._join()

    def _join(self) -> list[Phase]:
        generators = tuple(name for name in ("G_AB", "G_BA") if name in self.networks)
        phases = [Phase("G", generators, partial(self.generator_losses, terms=tuple(self.weights)))]
        if self.judges:
            judges = tuple(self.judges.values())
            phases.append(Phase("D", judges, partial(self.discriminator_losses, images=tuple(self.judges))))
        return phases

    def _alternate(self) -> list[Phase]:
        phases: list[Phase] = []
        for source, target in (("A", "B"), ("B", "A")):
            # What does not depend on this generator: how the other one's fakes are judged, and its identity.
            others = (f"adversarial_{source}", f"identity_{source}")
            terms = tuple(term for term in self.weights if term not in others)
            images = tuple(image for image in (f"fake_{target}", f"rec_{source}") if image in self.judges)
            name = f"G_{source}{target}"
            if terms:
                phases.append(Phase(name, (name,), partial(self.generator_losses, terms=terms, anew=True)))
            if images:
                judges = tuple(self.judges[image] for image in images)
                phases.append(Phase(f"D_{target}", judges, partial(self.discriminator_losses, images=images)))
        return phases

    def forward(self, batch: Batch) -> Shared:
        """All that the generators make: fakes, reconstructions, identities, as far as a term asks for them."""
        return {} if self.alternating else self.translate(batch, tuple(self.weights))

    def translate(self, batch: Batch, terms: Sequence[str]) -> dict[str, Tensor]:
        """The images that these terms look at."""
        wanted = {image for term in terms for image in _LOOKS_AT[term]}
        made_by = {image: how for image, how in _MADE_BY.items() if image in wanted}
        passes = [Pass(image, self.networks[generator], source) for image, (generator, source) in made_by.items()]
        return run_passes(passes, batch, batched=self.batched)

    def generator_losses(
        self, batch: Batch, shared: Shared, *, terms: Sequence[str], anew: bool = False
    ) -> dict[str, Tensor]:
        """Equation 3 as the generators see it; term by term, with its weight."""
        if anew:
            shared |= self.translate(batch, terms)
        return {term: self.weights[term] * self.term(term, batch, shared) for term in terms}

    def term(self, name: str, batch: Batch, images: Shared) -> Tensor:
        """One term of equation 3, without its weight."""
        kind, _, domain = name.rpartition("_")
        if kind == "cycle":
            return self.cycle(images[f"rec_{domain}"], batch[domain])
        if kind == "identity":
            return self.identity(images[f"idt_{domain}"], batch[domain])
        image, judge = _JUDGED[name]
        return self.adversarial.generator(self.networks[judge](images[image]))

    def discriminator_losses(self, batch: Batch, shared: Shared, *, images: Sequence[str]) -> dict[str, Tensor]:
        """Each discriminator tells real images of its domain from what was made in this step and in earlier ones."""
        losses: dict[str, Tensor] = {}
        for image in images:
            name = self.judges[image]
            real, fake = batch[image[-1]], self.pools[image](shared[image])
            losses[name] = tell_apart(
                self.adversarial,
                self.networks[name],
                real,
                fake,
                factor=self.discriminator_factor,
                batched=self.batched,
            )
        return losses

    def sample(self, batch: Batch) -> dict[str, Tensor]:
        """Each direction that there is: the real image, its translation, and the way back, if there is one."""
        images: dict[str, Tensor] = {}
        for source, target in (("A", "B"), ("B", "A")):
            there, back = self.directions.get(f"{source}2{target}"), self.directions.get(f"{target}2{source}")
            images[f"real_{source}"] = batch[source]
            if there is not None:
                images[f"fake_{target}"] = there(batch[source])
                if back is not None:
                    images[f"rec_{source}"] = back(images[f"fake_{target}"])
        return images

"""CUT: one direction, no way back; patches of a translation resemble those that they came from (Park et al. 2020)."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from gantoolkit.plugins import (
    AdversarialLossBlock,
    Batch,
    Direction,
    DiscriminatorBlock,
    GeneratorBlock,
    ImagePoolBlock,
    Pairing,
    Phase,
    Shared,
    SystemContext,
)
from gantoolkit.systems.objectives import DirectionName, Objective, Term, Weight, discriminator_loss, pool_generator
from gantoolkit_cut.patchnce import PatchHeads, PatchNCE, draw_places, encode

Count = Annotated[int, Field(ge=1)]


class CUT:
    """A generator, a discriminator, and heads F on the generator's own encoder, in which patches are compared.

    With `identity_nce` it is CUT, with `flip_equivariance` and a larger weight in its place FastCUT (§4, appendix C.1).

    Args:
        context: Channels, seed and side of the crops.
        generator: Makes the generator; its encoder is also what patches are compared in.
        discriminator: Makes the discriminator of the target domain.
        adversarial_loss: How logits are judged.
        image_pool: Past fakes for the discriminator; the paper has none.
        nce_layers: Modules of the generator whose outputs are compared, in the order in which they are computed. The default
            is the paper's choice in the generator `resnet`: pixels, both halvings, the first and the fifth residual block.
        patches: Patches of each image, and of each layer, that are compared.
        temperature: The loss's τ.
        head_width: Numbers in a head's output.
        adversarial_weight: Weight of the adversarial term.
        nce_weight: Weight of the contrastive terms, the paper's λ_X.
        identity_nce: Also compare images of the target domain with their translations, as much again; both terms are then
            halved, as in the authors' code.
        flip_equivariance: Mirror the input half of the time, and compare with what was not mirrored.
        direction: From which domain to which it learns to translate.

    Raises:
        ValueError: When the domains differ in channels, so that one encoder cannot see both, or a layer does not exist.
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
        nce_layers: Annotated[tuple[str, ...], Field(min_length=1)] = (
            "layers.0",
            "layers.4",
            "layers.7",
            "layers.10",
            "layers.14",
        ),
        patches: Count = 256,
        temperature: Annotated[float, Field(gt=0)] = 0.07,
        head_width: Count = 256,
        adversarial_weight: Weight = 1.0,
        nce_weight: Weight = 1.0,
        identity_nce: bool = True,
        flip_equivariance: bool = False,
        direction: DirectionName = "A2B",
    ) -> None:
        channels, others = context.channels_A, context.channels_B
        if channels != others:
            raise ValueError(
                f"CUT sees both domains through one encoder, but A has {channels} channels and B has {others}; set "
                "data.channels_A and data.channels_B alike"
            )
        way = Direction(direction)
        self.source, self.target, self.fake = way.source, way.target, f"fake_{way.target}"
        self.judge, idt, name = f"D_{way.target}", f"idt_{way.target}", f"G_{way.source}{way.target}"
        gan = adversarial_loss()
        self.adversarial, self.contrast = gan, PatchNCE(temperature=temperature)
        self.layers, self.patches = nce_layers, patches
        self.identity_nce, self.flip_equivariance = identity_nce, flip_equivariance
        # With the identity term, both contrastive terms are halved (equation 5, and the authors' code).
        half = nce_weight * (0.5 if identity_nce else 1.0)
        self.objective = Objective(
            [
                Term(
                    f"adversarial_{way.target}",
                    adversarial_weight,
                    lambda D, fake: gan.generator(D(fake)),
                    needs=(self.judge, self.fake),
                ),
                Term("nce", half, self.compare, needs=(self.fake, way.source, "mirrored")),
                Term("nce_identity", half * identity_nce, self.compare, needs=(idt, way.target, "mirrored")),
            ]
        )
        self.G, self.D = generator(channels, others), discriminator(others)
        with torch.device("meta"):  # to learn the channels of the layers, nothing is computed
            seen = encode(generator(channels, others), torch.zeros(1, channels, *[context.crop_size] * 2), nce_layers)
        self.F = PatchHeads([layer.shape[1] for layer in seen], head_width)
        self.networks = {name: self.G, self.judge: self.D, "F": self.F}
        self.directions = {direction: self.G}
        self.pools = {self.fake: image_pool(pool_generator(context, self.fake))}
        self.phases = [
            Phase("D", (self.judge,), self.discriminator_losses),
            Phase("G", (name, "F"), self.generator_losses),
        ]

    def forward(self, batch: Batch) -> Shared:
        """The translation and, if asked for, that of the target domain into itself; both mirrored, or neither."""
        mirrored = self.flip_equivariance and bool(torch.rand((), device="cpu") < 0.5)
        inputs = [batch[self.source], *([batch[self.target]] if self.identity_nce else [])]
        made = self.G(torch.cat([images.flip(-1) if mirrored else images for images in inputs]))
        names = (self.fake, f"idt_{self.target}")
        parts = made.split([len(images) for images in inputs])
        return {**dict(zip(names, parts, strict=False)), "mirrored": torch.tensor(mirrored, device="cpu")}

    def discriminator_losses(self, batch: Batch, shared: Shared) -> dict[str, Tensor]:
        """Real images of the target domain against translations."""
        fake = self.pools[self.fake](shared[self.fake])
        return {self.judge: discriminator_loss(self.adversarial, self.D, batch[self.target], fake)}

    def generator_losses(self, batch: Batch, shared: Shared) -> dict[str, Tensor]:
        """The adversarial term, and the contrastive terms (equation 5)."""
        return self.objective.losses(self.networks, {**batch, **shared})

    def compare(self, translated: Tensor, images: Tensor, mirrored: Tensor) -> Tensor:
        """PatchNCE in the mean over layers; without its weight."""
        queries = encode(self.G, translated, self.layers)
        if bool(mirrored):
            queries = [layer.flip(-1) for layer in queries]
        places = draw_places(queries, self.patches)
        with torch.no_grad():  # the loss passes no gradient to its keys
            keys = self.F(encode(self.G, images, self.layers), places)
        pairs = zip(self.F(queries, places), keys, strict=True)
        return torch.stack([self.contrast(query, key) for query, key in pairs]).mean()

    def sample(self, batch: Batch) -> dict[str, Tensor]:
        """The image, its translation, and an image of the target domain with its own."""
        source, target = batch[self.source], batch[self.target]
        return {
            f"real_{self.source}": source,
            self.fake: self.G(source),
            f"real_{self.target}": target,
            f"idt_{self.target}": self.G(target),
        }

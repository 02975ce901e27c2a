"""CUT: one-directional translation whose patches have to resemble their source patches (Park et al. 2020)."""

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
from gantoolkit_cut.patchnce import PatchHeads, PatchNCE, draw_positions, encode

Count = Annotated[int, Field(ge=1)]


class CUT:
    """A generator, a discriminator, and heads F that compare patches in the feature space of the generator's encoder.

    With `identity_nce` it is CUT; with `flip_equivariance` and a larger weight instead, it is FastCUT (§4, appendix C.1).

    Args:
        context: Channels, seed and side of the crops.
        generator: Builds the generator; its encoder also provides the features of patches.
        discriminator: Builds the discriminator of the target domain.
        adversarial_loss: Adversarial loss.
        image_pool: Past fakes for the discriminator; the paper uses none.
        nce_layers: Modules of the generator whose outputs are compared, in order of computation. The default is the paper's
            choice for the generator `resnet`: pixels, both downsamplings, the first and the fifth residual block.
        patches: Number of patches to compare per image and layer.
        temperature: Temperature τ of the loss.
        head_width: Output dimensions of the heads.
        adversarial_weight: Weight of the adversarial term.
        nce_weight: Weight of the contrastive terms, the paper's λ_X.
        identity_nce: Also compare images of the target domain with their translations, with the same weight; both terms are
            then halved, as in the authors' code.
        flip_equivariance: Flip the input with probability ½, and compare with the image that is not flipped.
        direction: Direction of translation.

    Raises:
        ValueError: If the domains have different numbers of channels, or a layer does not exist.
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
        channels, target_channels = context.channels_A, context.channels_B
        if channels != target_channels:
            raise ValueError(
                f"CUT uses one encoder for both domains, but A has {channels} channels and B has {target_channels}; set "
                "data.channels_A and data.channels_B to the same number"
            )
        route = Direction(direction)
        self.source, self.target, self.fake = route.source, route.target, f"fake_{route.target}"
        self.judge, idt, name = f"D_{route.target}", f"idt_{route.target}", f"G_{route.source}{route.target}"
        gan = adversarial_loss()
        self.adversarial, self.contrast = gan, PatchNCE(temperature=temperature)
        self.layers, self.patches = nce_layers, patches
        self.identity_nce, self.flip_equivariance = identity_nce, flip_equivariance
        # With the identity term, both contrastive terms are halved (equation 5, and the authors' code).
        weight = nce_weight * (0.5 if identity_nce else 1.0)
        mirrored = ("mirrored",) if flip_equivariance else ()
        self.objective = Objective(
            [
                Term(
                    f"adversarial_{route.target}",
                    adversarial_weight,
                    lambda D, fake: gan.generator(D(fake)),
                    needs=(self.judge, self.fake),
                ),
                Term("nce", weight, self.compare, needs=(self.fake, route.source, *mirrored)),
                Term("nce_identity", weight * identity_nce, self.compare, needs=(idt, route.target, *mirrored)),
            ]
        )
        self.G, self.D = generator(channels, target_channels), discriminator(target_channels)
        with torch.device("meta"):  # only the numbers of channels are needed
            features = encode(
                generator(channels, target_channels), torch.zeros(1, channels, *[context.crop_size] * 2), nce_layers
            )
        self.F = PatchHeads([layer.shape[1] for layer in features], head_width)
        self.networks = {name: self.G, self.judge: self.D, "F": self.F}
        self.directions = {direction: self.G}
        self.pools = {self.fake: image_pool(pool_generator(context, self.fake))}
        self.phases = [
            Phase("D", (self.judge,), self.discriminator_losses),
            Phase("G", (name, "F"), self.generator_losses),
        ]

    def forward(self, batch: Batch) -> Shared:
        """Translate the source images and, with `identity_nce`, the target images; all are flipped, or none."""
        inputs = [batch[self.source], *([batch[self.target]] if self.identity_nce else [])]
        counts, images, shared = [len(images) for images in inputs], torch.cat(inputs), {}
        if self.flip_equivariance:  # drawn on the device, so that a CUDA graph can capture it
            shared["mirrored"] = torch.rand((), device=images.device) < 0.5
            images = _mirror(images, shared["mirrored"])
        names = (self.fake, f"idt_{self.target}")
        return {**shared, **dict(zip(names, self.G(images).split(counts), strict=False))}

    def discriminator_losses(self, batch: Batch, shared: Shared) -> dict[str, Tensor]:
        """The discriminator loss on real images of the target domain and translations."""
        fake = self.pools[self.fake](shared[self.fake])
        return {self.judge: discriminator_loss(self.adversarial, self.D, batch[self.target], fake)}

    def generator_losses(self, batch: Batch, shared: Shared) -> dict[str, Tensor]:
        """The adversarial term, and the contrastive terms (equation 5)."""
        return self.objective.losses(self.networks, {**batch, **shared})

    def compare(self, translated: Tensor, images: Tensor, mirrored: Tensor | None = None) -> Tensor:
        """PatchNCE, averaged over the layers; without its weight."""
        queries = encode(self.G, translated, self.layers)
        if mirrored is not None:
            queries = [_mirror(layer, mirrored) for layer in queries]
        positions = draw_positions(queries, self.patches)
        with torch.no_grad():  # keys get no gradient
            keys = self.F(encode(self.G, images, self.layers), positions)
        pairs = zip(self.F(queries, positions), keys, strict=True)
        return torch.stack([self.contrast(query, key) for query, key in pairs]).mean()

    def sample(self, batch: Batch) -> dict[str, Tensor]:
        """A source image and a target image, each with its translation."""
        source, target = batch[self.source], batch[self.target]
        return {
            f"real_{self.source}": source,
            self.fake: self.G(source),
            f"real_{self.target}": target,
            f"idt_{self.target}": self.G(target),
        }


def _mirror(images: Tensor, mirrored: Tensor) -> Tensor:
    """Flip (N, C, H, W) horizontally if the scalar `mirrored` is true."""
    return torch.where(mirrored, images.flip(-1), images)

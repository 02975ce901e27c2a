"""CUT: one direction, no way back; patches of a translation resemble those that they came from (Park et al. 2020)."""

from typing import Annotated

import torch
from pydantic import Field
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
from gantoolkit.systems.terms import Direction, Weight, pool_generator, tell_apart
from gantoolkit_cut.patchnce import PatchHeads, PatchNCE, draw_places, encode

Count = Annotated[int, Field(ge=1)]


class CUT:
    """A generator, a discriminator, and heads F on the generator's own encoder, in which patches are compared.

    With `identity_nce` it is CUT, with `flip_equivariance` and a larger weight in its place FastCUT (§4, appendix C.1).

    Args:
        setting: Channels, seed and side of the crops.
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
        setting: Setting,
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
        direction: Direction = "A2B",
    ) -> None:
        channels, others = setting.channels_A, setting.channels_B
        if channels != others:
            raise ValueError(
                f"CUT sees both domains through one encoder, but A has {channels} channels and B has {others}; set "
                "data.channels_A and data.channels_B alike"
            )
        self.adversarial, self.contrast = adversarial_loss(), PatchNCE(temperature=temperature)
        self.adversarial_weight, self.nce_weight = adversarial_weight, nce_weight
        self.layers, self.patches = nce_layers, patches
        self.identity_nce, self.flip_equivariance = identity_nce, flip_equivariance
        self.source, self.target = direction.split("2")
        self.fake, self.judge = f"fake_{self.target}", f"D_{self.target}"

        self.G, self.D = generator(channels, others), discriminator(others)
        with torch.device("meta"):  # to learn the channels of the layers, nothing is computed
            seen = encode(generator(channels, others), torch.zeros(1, channels, *[setting.crop_size] * 2), nce_layers)
        self.F = PatchHeads([layer.shape[1] for layer in seen], head_width)
        name = f"G_{self.source}{self.target}"
        self.networks = {name: self.G, self.judge: self.D, "F": self.F}
        self.directions = {direction: self.G}
        self.pools = {self.fake: image_pool(pool_generator(setting, self.fake))}
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
        return {self.judge: tell_apart(self.adversarial, self.D, batch[self.target], fake)}

    def generator_losses(self, batch: Batch, shared: Shared) -> dict[str, Tensor]:
        """To be taken for real, patch by patch from the input, and the same for images of the target domain (equation 5)."""
        judged = self.adversarial.generator(self.D(shared[self.fake]))
        weight = self.nce_weight * (0.5 if self.identity_nce else 1.0)
        mirrored = bool(shared["mirrored"])
        losses = {
            f"adversarial_{self.target}": self.adversarial_weight * judged,
            "nce": weight * self.compare(shared[self.fake], batch[self.source], mirrored=mirrored),
        }
        if self.identity_nce:
            translated = shared[f"idt_{self.target}"]
            losses["nce_identity"] = weight * self.compare(translated, batch[self.target], mirrored=mirrored)
        return losses

    def compare(self, translated: Tensor, images: Tensor, *, mirrored: bool) -> Tensor:
        """PatchNCE in the mean over layers; without its weight."""
        queries = encode(self.G, translated, self.layers)
        if mirrored:
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

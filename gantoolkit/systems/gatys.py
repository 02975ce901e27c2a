"""Neural style transfer: the pixels themselves are optimized (Gatys et al. 2016).

Nothing is trained but a picture of the style: the mean Gram matrices of domain B, one image or a whole collection, as in the
comparison of Zhu et al. 2017, §5.2. A translation keeps the content of an image and takes on that style.
"""

from functools import partial
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from gantoolkit.plugins import (
    Batch,
    FeatureExtractor,
    FeatureExtractorBlock,
    Pairing,
    Phase,
    Shared,
    SystemContext,
)
from gantoolkit.systems.objectives import Weight, gradients

_SMALLEST_SIDE = 64
"""No level of the pyramid has a shorter side, unless the image itself has."""


class Gatys:
    """A style, measured on the images of B, and a translator that gives it to images of A by L-BFGS on their pixels.

    An epoch looks at every image of B once. Translating takes the time that training does elsewhere.

    Args:
        context: Seed of the noise.
        features: The network that is looked through; the paper takes VGG-19.
        content_layer: Layer whose features say what is shown.
        style_layers: Layers whose Gram matrices say how it is painted.
        content_weight: Weight of the content term.
        style_weight: Weight of the style terms; a layer of n channels gets `style_weight`/n².
        start: Whether the pixels start as the image to translate, or as noise.
        steps: Iterations of L-BFGS on each level of the pyramid.
        levels: Levels of the pyramid at most: style and content are taken at 1, ½, ¼, ... of the size, and each level starts
            from the coarser one's result (Gatys et al. 2017, §6). Large images need it; the paper has 1.
    """

    pairing: Pairing = "sequential"

    def __init__(
        self,
        context: SystemContext,
        *,
        features: FeatureExtractorBlock,
        content_layer: str = "relu4_2",
        style_layers: Annotated[tuple[str, ...], Field(min_length=1)] = (
            "relu1_1",
            "relu2_1",
            "relu3_1",
            "relu4_1",
            "relu5_1",
        ),
        content_weight: Weight = 1.0,
        style_weight: Weight = 1e3,
        start: Literal["content", "noise"] = "content",
        steps: Annotated[int, Field(ge=1)] = 200,
        levels: Annotated[int, Field(ge=1, le=6)] = 2,
    ) -> None:
        if not (content_weight or style_weight):
            raise ValueError("content_weight and style_weight are both 0: there is nothing to do")
        self.style = StyleTransfer(
            features(),
            content_layer,
            style_layers,
            content_weight=content_weight,
            style_weight=style_weight,
            start=start,
            steps=steps,
            levels=levels,
            seed=context.seed,
        )
        self.networks = {"style": self.style}
        self.directions = {"A2B": self.style}
        self.phases: list[Phase] = []
        self.pools = {}

    def forward(self, batch: Batch) -> Shared:
        """Add the images of B to the style."""
        self.style.observe(batch["B"])
        return {}

    def sample(self, batch: Batch) -> dict[str, Tensor]:
        """The image, what became of it, and an image of the style; before any style is known, without the second."""
        A, B = batch["A"], batch["B"]
        made = {"fake_B": self.style(A)} if self.style.images_seen else {}
        return {"real_A": A, **made, "real_B": B}


class StyleTransfer(nn.Module):
    """Optimizes an image until its features show its own content and the Gram matrices of a style.

    Its state is the style: for each level of the pyramid and each style layer the sum of the Gram matrices of all images that
    it was shown. Features are divided by each layer's mean activation on these images, as the paper rescales its network
    (§2), so that the weights mean the same with any backbone.
    """

    size_multiple = 1
    optimizes = True
    smallest_size = 32  # for VGG's four poolings
    stochastic = False

    def __init__(
        self,
        features: FeatureExtractor,
        content_layer: str,
        style_layers: tuple[str, ...],
        *,
        content_weight: float,
        style_weight: float,
        start: str,
        steps: int,
        levels: int,
        seed: int,
    ) -> None:
        super().__init__()
        self.features = partial(features)  # as itself, a network would become a part of this one and of its state
        self.content_layer, self.style_layers = content_layer, style_layers
        self.layers = tuple(dict.fromkeys((*style_layers, content_layer)))
        self.content_weight, self.style_weight = content_weight, style_weight
        self.start, self.steps, self.levels, self.seed = start, steps, levels, seed
        self.losses: list[list[float]] = []
        """Of the last image translated: the loss at each evaluation, level by level, the coarsest first."""
        side = self.smallest_size
        with torch.device("meta"):
            seen = features(torch.zeros(1, 3, side, side, device="meta"), self.layers)
        for layer in style_layers:
            if seen[layer].ndim != 4:
                raise ValueError(
                    f"style_layers: '{layer}' has no places to take a Gram matrix over; take a layer before it"
                )
        channels = {layer: found.shape[1] for layer, found in seen.items()}
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.register_buffer("activation", torch.zeros(len(self.layers)))
        for level in range(levels):
            for place, layer in enumerate(style_layers):
                self.register_buffer(f"gram_{level}_{place}", torch.zeros(channels[layer], channels[layer]))

    @property
    def images_seen(self) -> int:
        """Images that the style is the mean of."""
        return int(self.count)

    @torch.no_grad()
    def observe(self, images: Tensor) -> None:
        """Add images (N, C, H, W) in [−1, 1] to the style."""
        for level in range(self.levels):
            found = self.features(_shrink(images, level), self.layers)
            for place, layer in enumerate(self.style_layers):
                self.get_buffer(f"gram_{level}_{place}").add_(gram_matrices(found[layer]).sum(dim=0))
            if level == 0:
                activation = torch.stack([found[layer].abs().mean() for layer in self.layers])
                self.activation += len(images) * activation
        self.count += len(images)

    def forward(self, images: Tensor) -> Tensor:
        """Give the style to each of `images` (N, C, H, W) in [−1, 1]; same shape and range.

        Raises:
            ValueError: When no style has been seen.
        """
        if images.is_meta:
            return torch.empty_like(images)
        if not self.images_seen:
            raise ValueError("no style has been seen yet; train for a step first")
        # One by one: the curvature that L-BFGS estimates would mix them.
        return torch.cat([self._stylize(image[None]) for image in images])

    def _stylize(self, image: Tensor) -> Tensor:
        side = min(image.shape[-2:])
        levels = max(1, min(self.levels, (side // _SMALLEST_SIDE).bit_length()))
        self.losses = []
        if self.start == "noise":
            noise = (
                torch.rand(image.shape, generator=torch.Generator("cpu").manual_seed(self.seed), device="cpu") * 2 - 1
            )
            made = noise.to(image)
        else:
            made = image
        for level in reversed(range(levels)):
            content = _shrink(image, level)
            made = functional.interpolate(made, content.shape[-2:], mode="bicubic", antialias=True)
            made = self._optimize(made, content, level)
        return made.clamp(-1, 1)

    def _optimize(self, start: Tensor, content: Tensor, level: int) -> Tensor:
        """One level: the pixels that L-BFGS arrives at."""
        history: list[float] = []
        self.losses.append(history)
        with gradients():
            scales = {layer: mean / self.images_seen for layer, mean in zip(self.layers, self.activation, strict=True)}
            with torch.no_grad():
                wanted = self.features(content.clone(), (self.content_layer,))[self.content_layer]
            grams = [
                self.get_buffer(f"gram_{level}_{place}") / self.images_seen / scales[layer] ** 2
                for place, layer in enumerate(self.style_layers)
            ]
            pixels = start.clone().requires_grad_()
            # The terms are means over many numbers, so their gradients are small where they still matter: no tolerance.
            optimizer = torch.optim.LBFGS(
                [pixels],
                max_iter=self.steps,
                max_eval=self.steps * 5 // 4,
                tolerance_grad=0,
                tolerance_change=0,
                line_search_fn="strong_wolfe",
            )

            def evaluate() -> Tensor:
                found = self.features(pixels, self.layers)
                scale = scales[self.content_layer]
                content_term = functional.mse_loss(found[self.content_layer] / scale, wanted / scale)
                total = self.content_weight * content_term
                for layer, gram in zip(self.style_layers, grams, strict=True):
                    made = gram_matrices(found[layer] / scales[layer])[0]
                    total = total + self.style_weight / len(gram) ** 2 * functional.mse_loss(made, gram)
                (pixels.grad,) = torch.autograd.grad(total, pixels)
                total = total.detach()
                history.append(float(total))
                return total

            optimizer.step(evaluate)
        return pixels.detach()


def gram_matrices(features: Tensor) -> Tensor:
    """The Gram matrix of each image's features (N, C, H, W): (N, C, C), a mean over places (Gatys et al. 2016, §2.2)."""
    flat = features.flatten(2)
    return flat @ flat.transpose(1, 2) / flat.shape[2]


def _shrink(images: Tensor, level: int) -> Tensor:
    if level == 0:
        return images
    size = [max(1, side >> level) for side in images.shape[-2:]]
    return functional.interpolate(images, size, mode="bilinear", antialias=True)

"""Neural style transfer: the pixels themselves are optimized (Gatys et al. 2016).

Training only measures the style: the mean Gram matrices of domain B, one image or a whole collection, as in the comparison of
Zhu et al. 2017, §5.2. A translation has the content of its input and that style.
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
"""The shortest side of a level of the pyramid, unless the image itself is smaller."""


class Gatys:
    """A style, measured on the images of B, and a translator that applies it to images of A by L-BFGS on their pixels.

    An epoch reads every image of B once. Translating takes as long as training does elsewhere.

    Args:
        context: The seed of the noise.
        features: The feature network; the paper uses VGG-19.
        content_layer: The layer whose features define the content.
        style_layers: The layers whose Gram matrices define the style.
        content_weight: Weight of the content term.
        style_weight: Weight of the style terms; a layer of n channels gets `style_weight`/n².
        start: Whether the pixels start as the input, or as noise.
        steps: Iterations of L-BFGS on each level of the pyramid.
        levels: The maximal number of levels of the pyramid: style and content are computed at 1, ½, ¼, ... of the size, and
            each level starts from the result of the coarser one (Gatys et al. 2017, §6). Large images need it; the paper has 1.
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
            raise ValueError("content_weight and style_weight are both 0: there is nothing to optimize")
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
        self.style.add_images(batch["B"])
        return {}

    def sample(self, batch: Batch) -> dict[str, Tensor]:
        """The image, its translation once there is a style, and an image of the style."""
        A, B = batch["A"], batch["B"]
        translation = {"fake_B": self.style(A)} if self.style.images_seen else {}
        return {"real_A": A, **translation, "real_B": B}


class StyleTransfer(nn.Module):
    """Optimizes the pixels of an image for its own content features and the Gram matrices of a style.

    Its state is the style: for each level of the pyramid and each style layer, the sum of the Gram matrices of all observed
    images. Features are divided by the mean activation of their layer on these images, as the paper rescales its network (§2),
    so that the weights mean the same with any backbone.
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
        self.features = partial(features)  # wrapped, so that a network does not become a submodule with state
        self.content_layer, self.style_layers = content_layer, style_layers
        self.layers = tuple(dict.fromkeys((*style_layers, content_layer)))
        self.content_weight, self.style_weight = content_weight, style_weight
        self.start, self.steps, self.levels, self.seed = start, steps, levels, seed
        self.losses: list[list[float]] = []
        """The losses of the last translation at each evaluation, by level, the coarsest first."""
        side = self.smallest_size
        with torch.device("meta"):
            outputs = features(torch.zeros(1, 3, side, side, device="meta"), self.layers)
        for layer in style_layers:
            if outputs[layer].ndim != 4:
                raise ValueError(
                    f"style_layers: '{layer}' has no spatial dimensions for a Gram matrix; use an earlier layer"
                )
        channels = {layer: output.shape[1] for layer, output in outputs.items()}
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.register_buffer("activation", torch.zeros(len(self.layers)))
        for level in range(levels):
            for index, layer in enumerate(style_layers):
                self.register_buffer(f"gram_{level}_{index}", torch.zeros(channels[layer], channels[layer]))

    @property
    def images_seen(self) -> int:
        """The number of images of the style."""
        return int(self.count)

    @torch.no_grad()
    def add_images(self, images: Tensor) -> None:
        """Add images (N, C, H, W) in [−1, 1] to the style."""
        for level in range(self.levels):
            outputs = self.features(_shrink(images, level), self.layers)
            for index, layer in enumerate(self.style_layers):
                self.get_buffer(f"gram_{level}_{index}").add_(gram_matrices(outputs[layer]).sum(dim=0))
            if level == 0:
                activation = torch.stack([outputs[layer].abs().mean() for layer in self.layers])
                self.activation += len(images) * activation
        self.count += len(images)

    def forward(self, images: Tensor) -> Tensor:
        """Apply the style to each of `images` (N, C, H, W) in [−1, 1]; same shape and range.

        Raises:
            ValueError: When there is no style yet.
        """
        if images.is_meta:
            return torch.empty_like(images)
        if not self.images_seen:
            raise ValueError("there is no style yet; train for a step first")
        # One by one: L-BFGS would mix their curvature.
        return torch.cat([self._stylize(image[None]) for image in images])

    def _stylize(self, image: Tensor) -> Tensor:
        side = min(image.shape[-2:])
        levels = max(1, min(self.levels, (side // _SMALLEST_SIDE).bit_length()))
        self.losses = []
        if self.start == "noise":
            noise = (
                torch.rand(image.shape, generator=torch.Generator("cpu").manual_seed(self.seed), device="cpu") * 2 - 1
            )
            result = noise.to(image)
        else:
            result = image
        for level in reversed(range(levels)):
            content = _shrink(image, level)
            result = functional.interpolate(result, content.shape[-2:], mode="bicubic", antialias=True)
            result = self._optimize(result, content, level)
        return result.clamp(-1, 1)

    def _optimize(self, start: Tensor, content: Tensor, level: int) -> Tensor:
        """Optimize one level with L-BFGS; its pixels."""
        history: list[float] = []
        self.losses.append(history)
        with gradients():
            scales = {layer: mean / self.images_seen for layer, mean in zip(self.layers, self.activation, strict=True)}
            with torch.no_grad():
                target = self.features(content.clone(), (self.content_layer,))[self.content_layer]
            grams = [
                self.get_buffer(f"gram_{level}_{index}") / self.images_seen / scales[layer] ** 2
                for index, layer in enumerate(self.style_layers)
            ]
            pixels = start.clone().requires_grad_()
            # The terms are means over many values, so small gradients still matter: no tolerance.
            optimizer = torch.optim.LBFGS(
                [pixels],
                max_iter=self.steps,
                max_eval=self.steps * 5 // 4,
                tolerance_grad=0,
                tolerance_change=0,
                line_search_fn="strong_wolfe",
            )

            def evaluate() -> Tensor:
                outputs = self.features(pixels, self.layers)
                scale = scales[self.content_layer]
                content_term = functional.mse_loss(outputs[self.content_layer] / scale, target / scale)
                total = self.content_weight * content_term
                for layer, gram in zip(self.style_layers, grams, strict=True):
                    own_gram = gram_matrices(outputs[layer] / scales[layer])[0]
                    total = total + self.style_weight / len(gram) ** 2 * functional.mse_loss(own_gram, gram)
                (pixels.grad,) = torch.autograd.grad(total, pixels)
                total = total.detach()
                history.append(float(total))
                return total

            optimizer.step(evaluate)
        return pixels.detach()


def gram_matrices(features: Tensor) -> Tensor:
    """The Gram matrices (N, C, C) of features (N, C, H, W), averaged over positions (Gatys et al. 2016, §2.2)."""
    flat = features.flatten(2)
    return flat @ flat.transpose(1, 2) / flat.shape[2]


def _shrink(images: Tensor, level: int) -> Tensor:
    if level == 0:
        return images
    size = [max(1, side >> level) for side in images.shape[-2:]]
    return functional.interpolate(images, size, mode="bilinear", antialias=True)

"""Distances between images, for cycle consistency and the identity term."""

from typing import Annotated

import torch
from pydantic import AfterValidator, Field
from torch import Tensor
from torch.nn import functional

from gantoolkit.plugins import FeatureExtractorBlock


class L1:
    """Mean absolute difference (Zhu et al. 2017, §3.2)."""

    def __call__(self, images: Tensor, targets: Tensor) -> Tensor:
        return functional.l1_loss(images, targets)


class L2:
    """Mean squared difference."""

    def __call__(self, images: Tensor, targets: Tensor) -> Tensor:
        return functional.mse_loss(images, targets)


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError("must be odd")
    return value


class SSIM:
    """Structural dissimilarity, (1 − SSIM) / 2 in [0, 1] (Wang et al. 2004), from kornia.

    Args:
        window: Side of the Gaussian window in pixels; odd.
    """

    def __init__(self, *, window: Annotated[int, Field(ge=3), AfterValidator(_odd)] = 11) -> None:
        self.window = window

    def __call__(self, images: Tensor, targets: Tensor) -> Tensor:
        from kornia.losses import ssim_loss  # imported on use, since it takes a second

        if images.is_meta:  # kornia does not support the meta device
            return functional.l1_loss(images, targets)
        return ssim_loss((images + 1) / 2, (targets + 1) / 2, self.window)


class Features:
    """Mean absolute difference of deep features: a perceptual distance (Johnson et al. 2016; Zhu et al. 2017, §5.1.1).

    Args:
        features: The feature network; the comparison in Zhu et al. 2017 uses VGG-16.
        layers: Names of its layers; the distance is the mean over them.
        side: Size in pixels that images are first resized to; None keeps their size. The comparison in Zhu et al. 2017 uses
            224, the size that VGG was trained on.
    """

    def __init__(
        self,
        *,
        features: FeatureExtractorBlock,
        layers: Annotated[tuple[str, ...], Field(min_length=1)] = ("relu4_2",),
        side: Annotated[int, Field(ge=1)] | None = None,
    ) -> None:
        self.extract = features()
        self.layers = layers
        self.side = side

    def __call__(self, images: Tensor, targets: Tensor) -> Tensor:
        features = self.extract(self._resize(images), self.layers)
        with torch.no_grad():
            expected = self.extract(self._resize(targets.detach()), self.layers)
        return torch.stack([functional.l1_loss(features[layer], expected[layer]) for layer in self.layers]).mean()

    def _resize(self, images: Tensor) -> Tensor:
        if self.side is None:
            return images
        return functional.interpolate(images, (self.side, self.side), mode="bilinear", antialias=True)

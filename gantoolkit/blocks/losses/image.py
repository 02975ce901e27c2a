"""Distances between images: what cycle consistency and the identity term are measured in."""

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
        from kornia.losses import ssim_loss  # imported when used: it takes a second

        if images.is_meta:  # kornia asks torch for this device's precision, and it has none
            return functional.l1_loss(images, targets)
        return ssim_loss((images + 1) / 2, (targets + 1) / 2, self.window)


class Features:
    """Mean absolute difference of deep features: a perceptual distance (Johnson et al. 2016; Zhu et al. 2017, §5.1.1).

    Args:
        features: The network that is looked through; the comparison in Zhu et al. 2017 takes VGG-16.
        layers: Its layers, by name; the distance is the mean over them.
        side: Side in pixels to which images are resized first, none to take them as they are. The comparison in Zhu et
            al. 2017 takes 224, on which VGG was trained.
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
        made = self.extract(self._resize(images), self.layers)
        with torch.no_grad():
            wanted = self.extract(self._resize(targets.detach()), self.layers)
        return torch.stack([functional.l1_loss(made[layer], wanted[layer]) for layer in self.layers]).mean()

    def _resize(self, images: Tensor) -> Tensor:
        if self.side is None:
            return images
        return functional.interpolate(images, (self.side, self.side), mode="bilinear", antialias=True)

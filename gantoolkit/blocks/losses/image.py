"""Distances between images, for cycle consistency and the identity term."""

from typing import Annotated

import torch
from pydantic import AfterValidator, Field
from torch import Tensor
from torch.nn import functional

from gantoolkit.layers.resize import resize
from gantoolkit.plugins import FeatureExtractorBlock

_DEVIATION = 1.5
"""Standard deviation of SSIM's Gaussian window in pixels (Wang et al. 2004, §III.B), whatever its side."""
_C1, _C2 = 0.01**2, 0.03**2
"""SSIM's constants for images in [0, 1] (Wang et al. 2004, equation 13)."""


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
    """Structural dissimilarity, (1 − SSIM) / 2 in [0, 1] (Wang et al. 2004). Images are mirrored at their borders.

    Args:
        window: Side of the Gaussian window in pixels; odd.
    """

    def __init__(self, *, window: Annotated[int, Field(ge=3), AfterValidator(_odd)] = 11) -> None:
        self.window = window

    def __call__(self, images: Tensor, targets: Tensor) -> Tensor:
        x, y = (images + 1) / 2, (targets + 1) / 2
        mean_x, mean_y = self._blur(x), self._blur(y)
        variance_x = self._blur(x * x) - mean_x**2
        variance_y = self._blur(y * y) - mean_y**2
        covariance = self._blur(x * y) - mean_x * mean_y
        similarity = (2 * mean_x * mean_y + _C1) * (2 * covariance + _C2)
        similarity = similarity / ((mean_x**2 + mean_y**2 + _C1) * (variance_x + variance_y + _C2))
        return ((1 - similarity) / 2).clamp(0, 1).mean()

    def _blur(self, images: Tensor) -> Tensor:
        # Computed on the device of the images: a copy from the host would wait for it.
        offsets = torch.arange(self.window, device=images.device, dtype=images.dtype) - self.window // 2
        weights = torch.softmax(-(offsets**2) / (2 * _DEVIATION**2), dim=0)
        channels = images.shape[1]
        padded = functional.pad(images, [self.window // 2] * 4, mode="reflect")
        rows = functional.conv2d(padded, weights.expand(channels, 1, 1, -1), groups=channels)
        return functional.conv2d(rows, weights[:, None].expand(channels, 1, -1, 1), groups=channels)


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
        return resize(images, (self.side, self.side))

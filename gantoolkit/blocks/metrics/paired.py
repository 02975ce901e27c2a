"""Metrics that compare each image with its own target, averaged over images.

The target is the ground truth for paired data, and the input x for reconstructions F(G(x)).
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from gantoolkit.blocks.metrics.summed import Summed
from gantoolkit.errors import DataError
from gantoolkit.plugins import PIXEL_VALUES

__all__ = ["L1Distance", "MeanOverImages", "MeanOverPixels", "PeakSignalNoiseRatio", "StructuralSimilarity"]

_WINDOW = 11
_WIDTH = 2.0
"""The width of the range [−1, 1]."""


class MeanOverImages(Summed):
    """The mean of one value per image; a row of statistics is the value and 1, which counts the image."""

    against: Literal["ground_truth"] = "ground_truth"
    name: str

    def statistics(self, images: Tensor, targets: Tensor) -> Tensor:
        values = self.measure(*self.check(images, targets))
        return torch.stack([values, torch.ones_like(values)], dim=1)

    def values(self, sums: Tensor) -> dict[str, float]:
        return {self.name: float(sums[0] / sums[1])}

    def measure(self, images: Tensor, targets: Tensor) -> Tensor:
        """The value (N,) of each image, from images and targets (N, C, H, W) in [−1, 1] and float64."""
        raise NotImplementedError

    def check(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Both in float64, clipped to [−1, 1].

        Raises:
            DataError: If their shapes differ.
        """
        if images.shape != targets.shape:
            shapes = f"{tuple(images.shape)} and {tuple(targets.shape)}"
            raise DataError(f"{self.name}: images and targets must have the same shape, not {shapes}")
        images, targets = (batch.detach().double().clamp(-1, 1) for batch in (images, targets))
        return images, targets


class MeanOverPixels(MeanOverImages):
    """A function of the mean of a map over the pixels of each image.

    Pixels without data are left out, and so are images that have no other pixels.
    """

    excludes_nodata = True

    def statistics(self, images: Tensor, targets: Tensor, valid: Tensor | None = None) -> Tensor:
        pixels = self.map(*self.check(images, targets)).double().mean(dim=1, keepdim=True)
        counts = torch.ones_like(pixels) if valid is None else self.find_usable(valid).to(pixels)
        total = counts.flatten(1).sum(dim=1)
        values = self.summarize((counts * pixels).flatten(1).sum(dim=1) / total.clamp(min=1))
        has_pixels = total > 0
        return torch.stack([torch.where(has_pixels, values, 0), has_pixels.double()], dim=1)

    def map(self, images: Tensor, targets: Tensor) -> Tensor:
        """The value (N, C, H', W') of each pixel, from images and targets (N, C, H, W) in [−1, 1] and float64."""
        raise NotImplementedError

    def find_usable(self, valid: Tensor) -> Tensor:
        """The pixels (N, 1, H', W') of the map that depend only on pixels with data, for which `valid` (N, 1, H, W) is true."""
        return valid

    def summarize(self, means: Tensor) -> Tensor:
        """The value (N,) of each image from the mean of its map."""
        return means


class L1Distance(MeanOverPixels):
    """Mean absolute difference per pixel and channel, reported in the values of the domain's files: levels, HU, meters, ..."""

    name = "l1"
    higher_is_better = False
    units = {"l1": PIXEL_VALUES}

    def map(self, images: Tensor, targets: Tensor) -> Tensor:
        return (images - targets).abs()


class PeakSignalNoiseRatio(MeanOverPixels):
    """Peak signal-to-noise ratio in dB; infinite if any image equals its ground truth. The peak is the width of the range."""

    name = "psnr"
    higher_is_better = True
    units = {"psnr": "dB"}

    def map(self, images: Tensor, targets: Tensor) -> Tensor:
        return (images - targets).square()

    def summarize(self, means: Tensor) -> Tensor:
        return 10 * torch.log10(_WIDTH**2 / means)


class StructuralSimilarity(MeanOverPixels):
    """SSIM, at most 1, from torchmetrics (Wang et al. 2004; Gaussian window of 11×11 pixels, σ = 1.5).

    It is averaged over the pixels around which the window fits, so that images need 11×11 pixels or more. Windows with pixels
    without data are left out.
    """

    name = "ssim"
    higher_is_better = True

    def map(self, images: Tensor, targets: Tensor) -> Tensor:
        from torchmetrics.functional.image import structural_similarity_index_measure  # slow to import

        if min(images.shape[-2:]) < _WINDOW:
            size = "×".join(map(str, images.shape[-2:]))
            raise DataError(f"ssim: requires images of at least {_WINDOW}×{_WINDOW} pixels, not {size}")
        _, similarity = structural_similarity_index_measure(
            images + 1, targets + 1, data_range=_WIDTH, reduction="none", return_full_image=True
        )
        border = _WINDOW // 2  # here the window exceeds the image, and torchmetrics pads by reflection
        return similarity[..., border:-border, border:-border]

    def find_usable(self, valid: Tensor) -> Tensor:
        return functional.max_pool2d((~valid).float(), _WINDOW, stride=1) == 0

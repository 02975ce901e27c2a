"""Metrics that compare each image with its own target, averaged over images.

The target is the ground truth for paired data, and the input x for reconstructions F(G(x)).
"""

from typing import Literal

import torch
from torch import Tensor

from gantoolkit.blocks.metrics.summed import Summed
from gantoolkit.errors import DataError
from gantoolkit.plugins import PIXEL_VALUES

__all__ = ["L1Distance", "MeanOverImages", "PeakSignalNoiseRatio", "StructuralSimilarity"]

_WINDOW = 11


class MeanOverImages(Summed):
    """The mean of one value per image; a row of statistics is the value and 1, which counts the image."""

    against: Literal["ground_truth"] = "ground_truth"
    name: str

    def statistics(self, images: Tensor, targets: Tensor) -> Tensor:
        if images.shape != targets.shape:
            shapes = f"{tuple(images.shape)} and {tuple(targets.shape)}"
            raise DataError(f"{self.name}: images and targets must have the same shape, not {shapes}")
        values = self.measure(*(batch.detach().double().clamp(-1, 1) for batch in (images, targets)))
        return torch.stack([values, torch.ones_like(values)], dim=1)

    def values(self, sums: Tensor) -> dict[str, float]:
        return {self.name: float(sums[0] / sums[1])}

    def measure(self, images: Tensor, targets: Tensor) -> Tensor:
        """The value (N,) of each image, from images and targets (N, C, H, W) in [−1, 1] and float64."""
        raise NotImplementedError


class L1Distance(MeanOverImages):
    """Mean absolute difference per pixel and channel, reported in the values of the domain's files: levels, HU, meters, ..."""

    name = "l1"
    higher_is_better = False
    units = {"l1": PIXEL_VALUES}

    def measure(self, images: Tensor, targets: Tensor) -> Tensor:
        return (images - targets).abs().flatten(1).mean(dim=1)


class PeakSignalNoiseRatio(MeanOverImages):
    """Peak signal-to-noise ratio in dB, from torchmetrics; infinite if any image equals its ground truth.

    The peak is the width of the domain's range.
    """

    name = "psnr"
    higher_is_better = True
    units = {"psnr": "dB"}

    def measure(self, images: Tensor, targets: Tensor) -> Tensor:
        from torchmetrics.functional.image import peak_signal_noise_ratio  # slow to import

        ratios = [
            peak_signal_noise_ratio(image, target, data_range=2.0)
            for image, target in zip(images, targets, strict=True)
        ]
        return torch.stack(ratios).double()


class StructuralSimilarity(MeanOverImages):
    """SSIM, at most 1, from torchmetrics (Wang et al. 2004; Gaussian window of 11×11 pixels, σ = 1.5).

    It is averaged over the pixels around which the window fits, so that images need 11×11 pixels or more.
    """

    name = "ssim"
    higher_is_better = True

    def measure(self, images: Tensor, targets: Tensor) -> Tensor:
        from torchmetrics.functional.image import structural_similarity_index_measure

        if min(images.shape[-2:]) < _WINDOW:
            size = "×".join(map(str, images.shape[-2:]))
            raise DataError(f"ssim: requires images of at least {_WINDOW}×{_WINDOW} pixels, not {size}")
        _, similarity = structural_similarity_index_measure(
            images + 1, targets + 1, data_range=2.0, reduction="none", return_full_image=True
        )
        border = _WINDOW // 2  # here the window exceeds the image, and torchmetrics pads by reflection
        return similarity.double()[..., border:-border, border:-border].flatten(1).mean(dim=1)

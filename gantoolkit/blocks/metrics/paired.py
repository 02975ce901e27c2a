"""Distances of images from what they should be: the mean over images; they are rounded to 8 bits first, as in a file.

Measured by the truth where the data are pairs, and by the input for the way there and back, F(G(x)).
"""

from typing import Literal

import torch
from torch import Tensor

from gantoolkit.blocks.metrics.summed import Summed, to_levels
from gantoolkit.errors import DataError

__all__ = ["L1Distance", "MeanOverImages", "PeakSignalNoiseRatio", "StructuralSimilarity"]

_WINDOW = 11


class MeanOverImages(Summed):
    """A figure for each image; the rows are that figure and a one, to count by."""

    against: Literal["ground_truth"] = "ground_truth"
    name: str

    def statistics(self, images: Tensor, targets: Tensor) -> Tensor:
        if images.shape != targets.shape:
            raise DataError(
                f"{self.name}: images of shape {tuple(images.shape)} against {tuple(targets.shape)}; they have to be alike"
            )
        values = self.measure(to_levels(images), to_levels(targets))
        return torch.stack([values, torch.ones_like(values)], dim=1)

    def figures(self, sums: Tensor) -> dict[str, float]:
        return {self.name: float(sums[0] / sums[1])}

    def measure(self, images: Tensor, targets: Tensor) -> Tensor:
        """The figure (N,) of each image, from levels."""
        raise NotImplementedError


class L1Distance(MeanOverImages):
    """Mean absolute difference per pixel and channel, in levels from 0 to 255."""

    name = "l1"
    higher_is_better = False

    def measure(self, images: Tensor, targets: Tensor) -> Tensor:
        return (images - targets).abs().flatten(1).mean(dim=1)


class PeakSignalNoiseRatio(MeanOverImages):
    """Peak signal-to-noise ratio in dB, from torchmetrics; infinite as soon as one image is equal to its truth."""

    name = "psnr"
    higher_is_better = True

    def measure(self, images: Tensor, targets: Tensor) -> Tensor:
        from torchmetrics.functional.image import peak_signal_noise_ratio  # imported when used: it takes seconds

        ratios = [
            peak_signal_noise_ratio(image, target, data_range=255.0)
            for image, target in zip(images, targets, strict=True)
        ]
        return torch.stack(ratios).double()


class StructuralSimilarity(MeanOverImages):
    """SSIM, at most 1, from torchmetrics, of images of 11×11 pixels or more (Wang et al. 2004; Gaussian window, σ = 1.5),
    over the pixels around which the window fits.
    """

    name = "ssim"
    higher_is_better = True

    def measure(self, images: Tensor, targets: Tensor) -> Tensor:
        from torchmetrics.functional.image import structural_similarity_index_measure

        if min(images.shape[-2:]) < _WINDOW:
            raise DataError(f"ssim: needs images of {_WINDOW}×{_WINDOW} pixels or more, not {tuple(images.shape[-2:])}")
        both = structural_similarity_index_measure(
            images, targets, data_range=255.0, reduction="none", return_full_image=True
        )
        border = _WINDOW // 2  # where the window hangs over the edge torchmetrics looks at mirror images
        return both[1].double()[..., border:-border, border:-border].flatten(1).mean(dim=1)

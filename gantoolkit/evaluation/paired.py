"""Figures for translations whose truth is known, from torchmetrics; images are rounded to 8 bits first, as in a file."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torchmetrics import Metric

_LARGEST = 255.0


class L1Distance:
    """Mean absolute difference per pixel and channel, in levels from 0 to 255."""

    paired = True
    higher_is_better = False

    def __init__(self) -> None:
        from torchmetrics import MeanAbsoluteError  # imported when used: it takes seconds

        self._metric = MeanAbsoluteError().set_dtype(torch.float64)

    def update(self, images: Tensor, targets: Tensor) -> None:
        _update(self._metric, images, targets)

    def compute(self) -> dict[str, float]:
        return {"l1": float(self._metric.compute())}

    def reset(self) -> None:
        self._metric.reset()


class PeakSignalNoiseRatio:
    """Peak signal-to-noise ratio in dB, in the mean over images; infinite as soon as one of them is equal to its truth."""

    paired = True
    higher_is_better = True

    def __init__(self) -> None:
        from torchmetrics.image import PeakSignalNoiseRatio as Metric

        self._metric = Metric(data_range=_LARGEST, dim=(1, 2, 3)).set_dtype(torch.float64)

    def update(self, images: Tensor, targets: Tensor) -> None:
        _update(self._metric, images, targets)

    def compute(self) -> dict[str, float]:
        return {"psnr": float(self._metric.compute())}

    def reset(self) -> None:
        self._metric.reset()


class StructuralSimilarity:
    """SSIM, at most 1, in the mean over images of 11×11 pixels or more (Wang et al. 2004; Gaussian window, σ = 1.5)."""

    paired = True
    higher_is_better = True

    def __init__(self) -> None:
        from torchmetrics.image import StructuralSimilarityIndexMeasure

        self._metric = StructuralSimilarityIndexMeasure(data_range=_LARGEST).set_dtype(torch.float64)

    def update(self, images: Tensor, targets: Tensor) -> None:
        _update(self._metric, images, targets)

    def compute(self) -> dict[str, float]:
        return {"ssim": float(self._metric.compute())}

    def reset(self) -> None:
        self._metric.reset()


def _update(metric: "Metric", images: Tensor, targets: Tensor) -> None:
    metric.to(images.device).update(_quantise(images), _quantise(targets))


def _quantise(images: Tensor) -> Tensor:
    """Levels from 0 to 255, in float64: sums over many images keep their digits."""
    return torch.round((images.detach().double().clamp(-1, 1) + 1) * (_LARGEST / 2))

"""Base class of metrics that are functions of a sum over images."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor

from gantoolkit.errors import DataError

__all__ = ["Summed"]


class Summed(ABC):
    """Sum one row of statistics per image, in float64 so that sums over many images stay exact."""

    any_device = True

    def __init__(self) -> None:
        self._sums: Tensor | None = None

    @abstractmethod
    def statistics(self, images: Tensor, targets: Tensor) -> Tensor:
        """The contribution of each image to the sum: (N, K) in float64."""

    @abstractmethod
    def values(self, sums: Tensor) -> Mapping[str, float]:
        """Compute the values of the metric from a sum (K,) of such rows."""

    def update(self, images: Tensor, targets: Tensor) -> None:
        with torch.no_grad():
            sums = self.statistics(images, targets).sum(dim=0)
        self._sums = sums if self._sums is None else self._sums + sums

    def compute(self) -> Mapping[str, float]:
        """The values over all images.

        Raises:
            DataError: If there were no images.
        """
        if self._sums is None:
            raise DataError(f"{type(self).__name__}: no images to evaluate")
        return self.values(self._sums.cpu())

    def reset(self) -> None:
        self._sums = None

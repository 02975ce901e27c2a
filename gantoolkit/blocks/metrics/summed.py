"""What metrics share whose figures follow from a sum over images."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor

from gantoolkit.errors import DataError

__all__ = ["Summed", "to_levels"]

_LARGEST = 255.0


class Summed(ABC):
    """Adds up one row of numbers for each image, in float64: sums over many images keep their digits."""

    def __init__(self) -> None:
        self._sums: Tensor | None = None

    @abstractmethod
    def statistics(self, images: Tensor, targets: Tensor) -> Tensor:
        """What each image adds to the sum: (N, K) in float64."""

    @abstractmethod
    def figures(self, sums: Tensor) -> Mapping[str, float]:
        """The figures from a sum (K,) of such rows."""

    def update(self, images: Tensor, targets: Tensor) -> None:
        with torch.no_grad():
            added = self.statistics(images, targets).sum(dim=0)
        self._sums = added if self._sums is None else self._sums + added

    def compute(self) -> Mapping[str, float]:
        """The figures over all images.

        Raises:
            DataError: When there was none.
        """
        if self._sums is None:
            raise DataError(f"{type(self).__name__}: no image was measured")
        return self.figures(self._sums)

    def reset(self) -> None:
        self._sums = None


def to_levels(images: Tensor) -> Tensor:
    """Images in [−1, 1] as levels from 0 to 255 in float64, rounded as in a file."""
    return torch.round((images.detach().double().clamp(-1, 1) + 1) * (_LARGEST / 2))

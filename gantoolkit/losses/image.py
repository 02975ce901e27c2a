"""Distances between images: what cycle consistency and the identity term are measured in."""

from typing import Annotated

from pydantic import AfterValidator, Field
from torch import Tensor
from torch.nn import functional


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

        return ssim_loss((images + 1) / 2, (targets + 1) / 2, self.window)

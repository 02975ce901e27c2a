"""CoGAN's pair of generators, which share their early layers and render a latent as two images (Liu and Tuzel 2016, §3)."""

import math
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

_FIRST_SIDE = 4
_WIDEST = 8


class CoupledGenerator(nn.Module):
    """Transposed convolutions from a latent to an image of A and one of B, as in DCGAN (Radford et al. 2016).

    The early layers are one module, `tied`, which learns features of both domains. `own_A` and `own_B` turn these features
    into images.

    Args:
        channels_A: Channels of the images of A.
        channels_B: Channels of the images of B.
        side: Height and width of the images: 8, 16, 32, ...
        latent_size: Dimensions of the latent.
        width: Feature maps of the second-to-last layer; doubled toward the latent, up to 8 · width.
        own_layers: Late layers per domain; all earlier ones are tied.

    Raises:
        ValueError: If `side` is not such a size, or `own_layers` is larger than the number of layers that can be untied.
    """

    channels_last = True

    def __init__(
        self,
        channels_A: int,
        channels_B: int,
        side: int,
        *,
        latent_size: Annotated[int, Field(ge=1)] = 100,
        width: Annotated[int, Field(ge=1)] = 64,
        own_layers: Annotated[int, Field(ge=1)] = 2,
    ) -> None:
        super().__init__()
        doublings = count_doublings(side, own_layers)
        self.latent_size = latent_size
        widths = [width * min(2**level, _WIDEST) for level in reversed(range(doublings))]

        def upsample(level: int) -> list[nn.Module]:
            convolution = nn.ConvTranspose2d(widths[level], widths[level + 1], 4, stride=2, padding=1, bias=False)
            return [convolution, nn.BatchNorm2d(widths[level + 1]), nn.ReLU()]

        first = nn.ConvTranspose2d(latent_size, widths[0], _FIRST_SIDE, bias=False)
        shared = doublings - own_layers
        self.tied = nn.Sequential(
            first,
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(),
            *(layer for level in range(shared) for layer in upsample(level)),
        )

        def own(channels: int) -> nn.Sequential:
            middle = [layer for level in range(shared, doublings - 1) for layer in upsample(level)]
            return nn.Sequential(*middle, nn.ConvTranspose2d(widths[-1], channels, 4, stride=2, padding=1), nn.Tanh())

        self.own_A, self.own_B = own(channels_A), own(channels_B)

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Render (N, latent_size) as images of A and of B, (N, channels, side, side) in (−1, 1)."""
        features = self.tied(latents[:, :, None, None])
        return self.own_A(features), self.own_B(features)


def count_doublings(side: int, own_layers: int) -> int:
    """The number of times that 4 pixels have to be doubled to obtain `side`.

    Raises:
        ValueError: If `side` is not 4 times a power of two from 8 on, or the number is less than `own_layers`.
    """
    doublings = round(math.log2(side / _FIRST_SIDE)) if side >= 2 * _FIRST_SIDE else 0
    if not doublings or side != _FIRST_SIDE * 2**doublings:
        raise ValueError(f"data.crop_size is {side}; coupled networks produce images of 8, 16, 32, 64, ... pixels")
    if own_layers > doublings:
        raise ValueError(f"own_layers is {own_layers}; for images of {side} pixels it must be 1 to {doublings}")
    return doublings

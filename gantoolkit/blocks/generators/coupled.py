"""CoGAN's pair of generators: two images from one latent, the early layers tied (Liu and Tuzel 2016, §3)."""

import math
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

_FIRST_SIDE = 4
_WIDEST = 8


class CoupledGenerator(nn.Module):
    """Transposed convolutions from a latent to an image of A and one of B, in the manner of DCGAN (Radford et al. 2016).

    The tied layers are one module, `tied`, so that what is learned there holds for both domains; `own_A` and `own_B` turn its
    features into images.

    Args:
        channels_A: Channels of the images of A.
        channels_B: Channels of the images of B.
        side: Height and width of the images: 8, 16, 32, ...
        latent_size: Numbers in a latent.
        width: Feature maps of the last layer but one; they double toward the latent, up to eight times as many.
        own_layers: Layers that each domain has for itself; all before them are tied.

    Raises:
        ValueError: When the side is no such number, or there are fewer layers than `own_layers` asks for.
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
    """How often 4 pixels have to be doubled to make `side`.

    Raises:
        ValueError: When no number of times does, or fewer than `own_layers`.
    """
    doublings = round(math.log2(side / _FIRST_SIDE)) if side >= 2 * _FIRST_SIDE else 0
    if not doublings or side != _FIRST_SIDE * 2**doublings:
        raise ValueError(f"data.crop_size is {side}; coupled networks make images of 8, 16, 32, 64, ... pixels")
    if own_layers > doublings:
        raise ValueError(
            f"own_layers is {own_layers}; images of {side} pixels have {doublings} layers that can be untied"
        )
    return doublings

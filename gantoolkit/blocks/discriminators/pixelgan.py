"""The 1×1 discriminator, PixelGAN (Isola et al. 2017, appendix 6.1.2)."""

from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from gantoolkit.layers.fused import Chain
from gantoolkit.layers.normalization import Normalization, needs_bias, normalize_output


class PixelGANDiscriminator(nn.Module):
    """Judges each pixel by its color with 1×1 convolutions: one logit per pixel.

    Args:
        in_channels: Channels of the images to judge.
        width: Feature maps of the first layer; the second has 2 · width.
        norm: Normalization after the second convolution.
    """

    channels_last = True
    narrow_weights = True

    def __init__(
        self, in_channels: int, *, width: Annotated[int, Field(ge=1)] = 64, norm: Normalization = "instance"
    ) -> None:
        super().__init__()
        bias = needs_bias(norm)
        self.layers = Chain(
            nn.Conv2d(in_channels, width, 1),
            nn.LeakyReLU(0.2),
            *normalize_output(nn.Conv2d(width, 2 * width, 1, bias=bias), norm),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 1, 1, bias=bias),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Judge (N, in_channels, H, W) in [−1, 1]: logits (N, 1, H, W)."""
        return self.layers(images)

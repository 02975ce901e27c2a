"""The ResNet generator of Johnson et al. 2016, as CycleGAN uses it (Zhu et al. 2017, appendix 7.2)."""

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from gantoolkit.layers.convolution import Conv3x3
from gantoolkit.layers.fused import Chain, Residual
from gantoolkit.layers.normalization import Normalization, needs_bias, normalize_output

Padding = Literal["reflect", "replicate", "zero"]

_PAD = {"reflect": nn.ReflectionPad2d, "replicate": nn.ReplicationPad2d, "zero": nn.ZeroPad2d}
_DOWNSAMPLINGS = 2


class ResNetGenerator(nn.Module):
    """Downsamples twice, applies residual blocks, and upsamples twice; fully convolutional.

    With the defaults and three channels in and out it has 11,378,179 parameters.

    Args:
        in_channels: Channels of the images to translate.
        out_channels: Channels of the translation.
        blocks: Residual blocks; the paper uses 9 for 256×256 images and 6 for 128×128.
        width: Feature maps of the first layer; the residual blocks have 4 · width.
        norm: Normalization after every convolution but the last.
        padding: Padding of the 7×7 convolutions and the residual blocks.
        dropout: Dropout probability inside each residual block.
        upsampling: `transposed` is the paper's transposed convolution; `resize` is nearest-neighbor upsampling and a
            convolution, which avoids checkerboard artifacts (Odena et al. 2016).
    """

    channels_last = True
    narrow_weights = True
    size_multiple = 2**_DOWNSAMPLINGS
    smallest_size = 2 * size_multiple  # the residual blocks reflect features of 2×2 pixels, not of 1×1

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        blocks: Annotated[int, Field(ge=1)] = 9,
        width: Annotated[int, Field(ge=1)] = 64,
        norm: Normalization = "instance",
        padding: Padding = "reflect",
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        upsampling: Literal["transposed", "resize"] = "transposed",
    ) -> None:
        super().__init__()
        bias = needs_bias(norm)

        def activated(convolution: nn.Conv2d | nn.ConvTranspose2d) -> list[nn.Module]:
            return [*normalize_output(convolution, norm), nn.ReLU()]

        def upsample(in_channels: int, out_channels: int) -> list[nn.Module]:
            if upsampling == "transposed":
                return activated(
                    nn.ConvTranspose2d(in_channels, out_channels, 3, stride=2, padding=1, output_padding=1, bias=bias)
                )
            convolution, *others = activated(nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=bias))
            return [nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), convolution), *others]

        layers: list[nn.Module] = [_PAD[padding](3), *activated(nn.Conv2d(in_channels, width, 7, bias=bias))]
        for level in range(_DOWNSAMPLINGS):
            fine, coarse = width * 2**level, width * 2 ** (level + 1)
            layers += activated(nn.Conv2d(fine, coarse, 3, stride=2, padding=1, bias=bias))
        channels = width * 2**_DOWNSAMPLINGS
        layers += [ResidualBlock(channels, norm=norm, padding=padding, dropout=dropout) for _ in range(blocks)]
        for level in reversed(range(_DOWNSAMPLINGS)):
            fine, coarse = width * 2**level, width * 2 ** (level + 1)
            layers += upsample(coarse, fine)
        layers += [_PAD[padding](3), nn.Conv2d(width, out_channels, 7), nn.Tanh()]
        self.layers = Chain(*layers)

    def forward(self, images: Tensor) -> Tensor:
        """Translate (N, in_channels, H, W) in [−1, 1] to (N, out_channels, H, W) in (−1, 1); H and W multiples of 4."""
        return self.layers(images)


class ResidualBlock(Residual):
    """Two 3×3 convolutions and an identity path, without an activation after the sum."""

    def __init__(self, channels: int, *, norm: Normalization, padding: Padding, dropout: float) -> None:
        def convolution() -> list[nn.Module]:
            return [_PAD[padding](1), *normalize_output(Conv3x3(channels, channels, bias=needs_bias(norm)), norm)]

        dropouts = [nn.Dropout(dropout)] if dropout else []
        super().__init__(*convolution(), nn.ReLU(), *dropouts, *convolution())

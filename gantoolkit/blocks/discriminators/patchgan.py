"""The PatchGAN discriminator (Isola et al. 2017, appendix 6.1.2; Zhu et al. 2017, appendix 7.2)."""

from typing import Annotated

from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm as normalize_spectrally

from gantoolkit.layers.fused import Chain
from gantoolkit.layers.normalization import Normalization, needs_bias, normalize_output

_WIDEST = 8


class PatchGANDiscriminator(nn.Module):
    """Judges overlapping patches with 4×4 convolutions: one logit per patch.

    With three layers the receptive field is 70×70, a 256×256 image gives 30×30 logits, and the network has 2,764,737
    parameters.

    Args:
        in_channels: Channels of the images to judge.
        layers: Convolutions of stride 2; each more than doubles the receptive field.
        width: Feature maps of the first layer; doubled by each layer, up to 8 · width.
        norm: Normalization after every convolution but the first and the last.
        padding: Zero padding of every convolution in pixels; the authors' first code uses 2, which gives 35×35 logits for a
            256×256 image.
        spectral_norm: Divide each convolution's weight by its spectral norm (Miyato et al. 2018).
    """

    channels_last = True
    narrow_weights = True

    def __init__(
        self,
        in_channels: int,
        *,
        layers: Annotated[int, Field(ge=1)] = 3,
        width: Annotated[int, Field(ge=1)] = 64,
        norm: Normalization = "instance",
        padding: Annotated[int, Field(ge=0, le=3)] = 1,
        spectral_norm: bool = False,
    ) -> None:
        super().__init__()

        def convolution(inputs: int, outputs: int, stride: int, bias: bool = True) -> nn.Conv2d:
            layer = nn.Conv2d(inputs, outputs, 4, stride=stride, padding=padding, bias=bias)
            if spectral_norm:
                normalize_spectrally(layer)
            return layer

        parts: list[nn.Module] = [convolution(in_channels, width, stride=2), nn.LeakyReLU(0.2)]
        channels = width
        for layer in range(1, layers + 1):
            out_channels = width * min(2**layer, _WIDEST)
            stride = 2 if layer < layers else 1
            parts += normalize_output(convolution(channels, out_channels, stride, needs_bias(norm)), norm)
            parts.append(nn.LeakyReLU(0.2))
            channels = out_channels
        parts.append(convolution(channels, 1, stride=1))
        self.layers = Chain(*parts)

    def forward(self, images: Tensor) -> Tensor:
        """Judge (N, in_channels, H, W) in [−1, 1]: logits (N, 1, H', W'), with H' = H/8 − 2 for the defaults."""
        return self.layers(images)

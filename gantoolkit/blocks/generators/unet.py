"""The U-Net generator of pix2pix (Isola et al. 2017, appendix 6.1.1)."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from gantoolkit.layers.fused import Chain
from gantoolkit.layers.normalization import Normalization, needs_bias, normalize_output

_WIDEST = 8
_OUTER_LEVELS = 4


class UNetGenerator(nn.Module):
    """Downsamples `depth` times and upsamples again, with skip connections between levels of the same size.

    With depth 8, width 64, batch norm and three channels it has 54,413,955 parameters (with depth 7: 41,828,995).

    Args:
        in_channels: Channels of the images to translate.
        out_channels: Channels of the translation.
        depth: Number of downsamplings; H and W have to be multiples of 2^depth. The paper uses 8 for 256×256 images.
        width: Feature maps of the first level, doubled by each level up to 8 · width.
        norm: Normalization after every convolution but the first, the innermost and the last.
        dropout: Dropout probability in the decoder's inner levels of full width; the paper uses 0.5.
        noise_at_test: Keep dropout on in evaluation mode, and let batch norm use the statistics of the current batch: the
            paper's only source of noise (§2.1, §3.4).
    """

    channels_last = True
    narrow_weights = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        depth: Annotated[int, Field(ge=2, le=12)] = 8,
        width: Annotated[int, Field(ge=1)] = 64,
        norm: Normalization = "batch",
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        noise_at_test: bool = False,
    ) -> None:
        super().__init__()
        self.size_multiple = 2**depth
        self.stochastic = noise_at_test
        bias = needs_bias(norm)
        channels = [width * min(2**level, _WIDEST) for level in range(depth)]

        self.downs = nn.ModuleList()
        for level in range(depth):
            inputs = in_channels if level == 0 else channels[level - 1]
            layers: list[nn.Module] = [] if level == 0 else [nn.LeakyReLU(0.2)]
            convolution = nn.Conv2d(inputs, channels[level], 4, stride=2, padding=1, bias=bias)
            if 0 < level < depth - 1:  # the innermost level may be a single pixel, which has no variance
                layers += normalize_output(convolution, norm, running=not noise_at_test)
            else:
                layers.append(convolution)
            self.downs.append(Chain(*layers))

        self.ups = nn.ModuleList()
        for level in reversed(range(1, depth)):
            inputs = channels[level] if level == depth - 1 else 2 * channels[level]
            outputs = channels[level - 1]
            convolution = nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=bias)
            layers = [nn.ReLU(), *normalize_output(convolution, norm, running=not noise_at_test)]
            if dropout and _OUTER_LEVELS <= level < depth - 1:
                layers.append(_PermanentDropout(dropout) if noise_at_test else nn.Dropout(dropout))
            self.ups.append(Chain(*layers))
        outermost = nn.ConvTranspose2d(2 * channels[0], out_channels, 4, stride=2, padding=1)
        self.ups.append(nn.Sequential(nn.ReLU(), outermost, nn.Tanh()))

    def forward(self, images: Tensor) -> Tensor:
        """Translate (N, in_channels, H, W) in [−1, 1] to (N, out_channels, H, W) in (−1, 1)."""
        skips: list[Tensor] = []
        features = images
        for down in self.downs:
            features = down(features)
            skips.append(features)
        features = skips.pop()
        for up in self.ups:
            features = up(features)
            if skips:
                features = torch.cat([skips.pop(), features], dim=1)
        return features


class _PermanentDropout(nn.Module):
    """Dropout that stays on in evaluation mode."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, features: Tensor) -> Tensor:
        return functional.dropout(features, self.probability, training=True)

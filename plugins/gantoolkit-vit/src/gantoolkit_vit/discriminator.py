"""A discriminator on the features of a pretrained network (Sauer et al. 2021, Projected GANs)."""

import itertools
from typing import Annotated

import torch
from einops import rearrange
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from gantoolkit.plugins import FeatureExtractorBlock

_PROBED_SIDE = 64
_FEATURES = {"name": "timm", "backbone": "tf_efficientnet_lite0"}


class ProjectedDiscriminator(nn.Module):
    """Judges features at several scales, mixed by fixed random projections (§3).

    A feature extractor block provides the features. A random 1×1 convolution mixes the channels of each scale (§3.2,
    cross-channel mixing). From coarse to fine, random 3×3 convolutions add each scale to the next (cross-scale mixing). A small
    network with spectral norm judges each scale; all return the same number of logits, which are concatenated. Unlike the
    authors' networks, these have no batch norm.

    Args:
        in_channels: Channels of the images to judge: 1, or a multiple of 3 (an image and its translation have 6).
        features: The pretrained feature network.
        layers: Its layers, from fine to coarse, each half the size of the one before.
        width: Feature maps of the finest scale, doubled by each scale.
        side: Size in pixels that images are first resized to; None keeps their size.

    Raises:
        ValueError: If the number of channels is unsupported, or a layer is not half the size of the one before.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        features: FeatureExtractorBlock = _FEATURES,  # type: ignore[assignment] (the recipe replaces it by a block)
        layers: Annotated[tuple[str, ...], Field(min_length=1)] = ("blocks.1", "blocks.2", "blocks.4", "blocks.6"),
        width: Annotated[int, Field(ge=1)] = 64,
        side: Annotated[int, Field(ge=32)] | None = None,
    ) -> None:
        super().__init__()
        if in_channels != 1 and in_channels % 3:
            raise ValueError(
                f"projected: images have {in_channels} channels; it supports 1 channel, or a multiple of 3"
            )
        self.extract = features()
        self.layers, self.side = layers, side
        self.images = max(1, in_channels // 3)
        probe = torch.zeros(1, min(3, in_channels), _PROBED_SIDE, _PROBED_SIDE, device="meta")
        scales = [self.extract(probe, layers)[layer] for layer in layers]
        if any(fine.shape[-1] != 2 * coarse.shape[-1] for fine, coarse in itertools.pairwise(scales)):
            sides = ", ".join(f"{layer} {scale.shape[-1]}" for layer, scale in zip(layers, scales, strict=True))
            raise ValueError(f"projected: each layer has to be half the size of the one before; the sizes are {sides}")
        widths = [width * 2**scale for scale in range(len(layers))]
        self.mix_channels = nn.ModuleList(
            nn.Conv2d(self.images * scale.shape[1], count, 1) for scale, count in zip(scales, widths, strict=True)
        )
        self.mix_scales = nn.ModuleList(
            nn.Conv2d(coarse, fine, 3, padding=1) for fine, coarse in itertools.pairwise(widths)
        )
        # Random projections stay fixed, so that training cannot degrade them (§3.1).
        self.mix_channels.requires_grad_(False)
        self.mix_scales.requires_grad_(False)
        self.judges = nn.ModuleList(
            _judge(count, downsamplings=len(layers) - 1 - scale) for scale, count in enumerate(widths)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Judge (N, in_channels, H, W) in [−1, 1]: logits (N, 1, H', W'), with the scales concatenated along the width."""
        scales = self.project(images)
        logits = [judge(scale) for judge, scale in zip(self.judges, scales, strict=True)]
        # The sizes differ only if the image's side is not a multiple of the layers' strides.
        shape = logits[-1].shape[-2:]
        return torch.cat(
            [scale if scale.shape[-2:] == shape else functional.adaptive_avg_pool2d(scale, shape) for scale in logits],
            dim=-1,
        )

    def project(self, images: Tensor) -> list[Tensor]:
        """Compute the projected features of each scale, from fine to coarse."""
        if self.side is not None:
            images = functional.interpolate(images, (self.side, self.side), mode="bilinear", antialias=True)
        features = self.extract(rearrange(images, "n (k c) h w -> (n k) c h w", k=self.images), self.layers)
        projections = [
            mix(rearrange(features[layer], "(n k) c h w -> n (k c) h w", k=self.images))
            for mix, layer in zip(self.mix_channels, self.layers, strict=True)
        ]
        mixed = [projections[-1]]
        for mix, scale in zip(reversed(self.mix_scales), reversed(projections[:-1]), strict=True):
            coarse = functional.interpolate(mix(mixed[0]), scale.shape[-2:], mode="bilinear")
            mixed.insert(0, scale + coarse)
        return mixed


def _judge(channels: int, *, downsamplings: int) -> nn.Sequential:
    """Build the network that judges one scale, downsampling to the size of the coarsest."""
    layers: list[nn.Module] = []
    for _ in range(downsamplings):
        layers += [spectral_norm(nn.Conv2d(channels, channels, 4, stride=2, padding=1)), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, spectral_norm(nn.Conv2d(channels, 1, 1)))

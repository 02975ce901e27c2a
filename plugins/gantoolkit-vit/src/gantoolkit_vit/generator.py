"""A U-Net with a vision transformer as its bottleneck, as in UVCGAN (Torbunov et al. 2022, §3.1)."""

from typing import Annotated

import torch
from einops import rearrange
from pydantic import Field
from timm.models.vision_transformer import Block
from torch import Tensor, nn

_LEVELS = 4

Count = Annotated[int, Field(ge=1)]


class ViTUNet(nn.Module):
    """Four levels of convolutions with skip connections, and a transformer whose tokens are the pixels of the coarsest level.

    By default it has the paper's numbers of blocks, heads and features. The transformer blocks are timm's: pre-norm with a
    small initial LayerScale, where the paper uses ReZero.

    Args:
        in_channels: Channels of the images to translate.
        out_channels: Channels of the translation.
        width: Feature maps of the first level, doubled by each level.
        blocks: Blocks of the transformer.
        features: Dimensions of a token; a multiple of `heads`.
        heads: Number of attention heads.

    Raises:
        ValueError: If `features` is not a multiple of `heads`.
    """

    size_multiple = 2**_LEVELS

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        width: Count = 48,
        blocks: Count = 12,
        features: Count = 384,
        heads: Count = 6,
    ) -> None:
        super().__init__()
        if features % heads:
            raise ValueError(f"vit_unet: features is {features}; it has to be a multiple of heads, which is {heads}")
        widths = [width * 2**level for level in range(_LEVELS)]
        self.first = nn.Sequential(nn.Conv2d(in_channels, width, 3, padding=1), nn.LeakyReLU(0.2))
        self.levels = nn.ModuleList(_convolutions(widths[max(0, level - 1)], widths[level]) for level in range(_LEVELS))
        self.downs = nn.ModuleList(nn.Conv2d(count, count, 2, stride=2) for count in widths)
        self.transformer = _Transformer(widths[-1], features, blocks, heads)
        self.ups = nn.ModuleList(
            nn.Sequential(
                nn.Upsample(scale_factor=2), nn.Conv2d(widths[min(level + 1, _LEVELS - 1)], widths[level], 3, padding=1)
            )
            for level in reversed(range(_LEVELS))
        )
        self.joins = nn.ModuleList(
            _convolutions(2 * widths[level], widths[level]) for level in reversed(range(_LEVELS))
        )
        self.last = nn.Conv2d(width, out_channels, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Translate (N, in_channels, H, W) in [−1, 1] to (N, out_channels, H, W) in (−1, 1); H and W multiples of 16."""
        features, skips = self.first(images), []
        for level, down in zip(self.levels, self.downs, strict=True):
            features = level(features)
            skips.append(features)
            features = down(features)
        features = self.transformer(features)
        for up, join in zip(self.ups, self.joins, strict=True):
            features = join(torch.cat([up(features), skips.pop()], dim=1))
        return torch.tanh(self.last(features))


class _Transformer(nn.Module):
    """Transformer over the positions of (N, C, H, W), with learned Fourier position features (Tancik et al. 2020)."""

    def __init__(self, channels: int, features: int, blocks: int, heads: int) -> None:
        super().__init__()
        self.embed_position = nn.Linear(2, features)
        self.project_in = nn.Linear(channels + features, features)
        self.blocks = nn.Sequential(*(Block(features, heads, qkv_bias=True, init_values=1e-2) for _ in range(blocks)))
        self.project_out = nn.Linear(features, channels)

    def forward(self, features: Tensor) -> Tensor:
        height, width = features.shape[-2:]
        tokens = rearrange(features, "n c h w -> n (h w) c")
        rows, columns = (
            torch.linspace(-1, 1, count, device=tokens.device, dtype=tokens.dtype) for count in (height, width)
        )
        positions = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1).flatten(0, 1)
        embedding = torch.sin(self.embed_position(positions)).expand(len(tokens), -1, -1)
        tokens = self.blocks(self.project_in(torch.cat([tokens, embedding], dim=-1)))
        return rearrange(self.project_out(tokens), "n (h w) c -> n c h w", h=height)


def _convolutions(in_channels: int, out_channels: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (in_channels, out_channels):
        layers += [nn.Conv2d(channels, out_channels, 3, padding=1), nn.InstanceNorm2d(out_channels), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers)

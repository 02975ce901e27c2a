"""CoGAN's pair of discriminators, which share their late layers (Liu and Tuzel 2016, §3)."""

from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

_LAST_SIDE = 4
_WIDEST = 8


class CoupledDiscriminator(nn.Module):
    """Strided convolutions down to 4×4 features, and one logit from these, for images of A and of B.

    Each domain has its own early layers, `own_A` and `own_B`, for low-level features. The late layers are one module, `tied`.

    Args:
        channels_A: Channels of the images of A.
        channels_B: Channels of the images of B.
        side: Height and width of the images: 8, 16, 32, ...
        width: Feature maps of the first layer; doubled by each layer, up to 8 · width.
        own_layers: Early layers per domain; all later ones are tied.

    Raises:
        ValueError: If `own_layers` is larger than the number of layers that can be untied.
    """

    channels_last = True

    def __init__(
        self,
        channels_A: int,
        channels_B: int,
        side: int,
        *,
        width: Annotated[int, Field(ge=1)] = 64,
        own_layers: Annotated[int, Field(ge=1)] = 2,
    ) -> None:
        super().__init__()
        halvings = (side // _LAST_SIDE).bit_length() - 1
        if own_layers > halvings:
            raise ValueError(f"own_layers is {own_layers}; for images of {side} pixels it must be 1 to {halvings}")
        widths = [width * min(2**level, _WIDEST) for level in range(halvings)]

        def downsample(level: int) -> list[nn.Module]:
            convolution = nn.Conv2d(widths[level - 1], widths[level], 4, stride=2, padding=1, bias=False)
            return [convolution, nn.BatchNorm2d(widths[level]), nn.LeakyReLU(0.2)]

        def own(channels: int) -> nn.Sequential:
            first = nn.Conv2d(channels, widths[0], 4, stride=2, padding=1)
            return nn.Sequential(
                first, nn.LeakyReLU(0.2), *(layer for level in range(1, own_layers) for layer in downsample(level))
            )

        self.own_A, self.own_B = own(channels_A), own(channels_B)
        late = [layer for level in range(own_layers, halvings) for layer in downsample(level)]
        self.tied = nn.Sequential(*late, nn.Conv2d(widths[-1], 1, _LAST_SIDE))

    def forward(self, images_A: Tensor, images_B: Tensor) -> tuple[Tensor, Tensor]:
        """Judge (N, channels, side, side) in [−1, 1] of each domain: logits (N, 1, 1, 1) for each."""
        return self.tied(self.own_A(images_A)), self.tied(self.own_B(images_B))

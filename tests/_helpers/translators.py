"""Translators with a known result, without training."""

from typing import Any

import torch
from torch import Tensor, nn

from gantoolkit.inference import Translator
from gantoolkit.recipes import cyclegan
from gantoolkit.runs import LoadedGenerator

__all__ = ["open_negative"]


class _Negative(nn.Module):
    """Negates every value, and converts channels: the mean of them is repeated."""

    size_multiple = 1

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(-1.0))
        self.channels = channels

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[1] != self.channels:
            images = images.mean(1, keepdim=True).expand(-1, self.channels, -1, -1)
        return self.weight * images


def open_negative(**data: Any) -> Translator:
    """A translator A2B that turns white into black, of a recipe with these settings of `data`."""
    recipe = cyclegan(identity_weight=0.0).swap({f"data.{name}": value for name, value in data.items()})
    return Translator(LoadedGenerator(_Negative(recipe.data.channels_B), "A2B", recipe, step=0))

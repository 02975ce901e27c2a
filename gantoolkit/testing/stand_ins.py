"""Small blocks that fill the slots of a block under test."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["STAND_INS", "RandomFeatures"]


class RandomFeatures:
    """Features of one convolution with fixed random weights, at half the size of the images; accepts any layer name."""

    def __call__(self, images: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        pixels = images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images
        weight = torch.randn(8, 3, 3, 3, generator=torch.Generator("cpu").manual_seed(0), device="cpu")
        features = functional.conv2d(pixels, 0.2 * weight.to(images), stride=2, padding=1)
        return dict.fromkeys(layers, features)


STAND_INS: dict[str, Any] = {
    "generators": {"name": "gantoolkit:resnet", "width": 4, "blocks": 1},
    "discriminators": {"name": "gantoolkit:patchgan", "width": 4, "layers": 1},
    "coupled_generators": {"name": "gantoolkit:dcgan", "width": 4, "latent_size": 8},
    "coupled_discriminators": {"name": "gantoolkit:dcgan", "width": 4},
    "feature_extractors": RandomFeatures,
    "adversarial_losses": "gantoolkit:lsgan",
    "image_losses": "gantoolkit:l1",
    "image_pools": {"name": "gantoolkit:history", "size": 2},
    "schedulers": "gantoolkit:constant",
    "initializers": "gantoolkit:normal",
    "optimizers": "gantoolkit:adam",
    "metrics": "gantoolkit:l1",
}
"""Small blocks by kind, for the slots that a test does not fill."""

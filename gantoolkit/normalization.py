"""The normalisations that generators and discriminators choose from by name."""

from typing import Literal

from torch import nn

Normalization = Literal["instance", "instance_affine", "batch", "none"]
"""`instance` has neither weights nor running statistics, as in the official PyTorch implementation of CycleGAN;
`instance_affine` has weights, as in its authors' earlier code; `batch` has both."""


def normalization(name: Normalization, channels: int, *, running: bool = True) -> nn.Module:
    """A normalisation layer for `channels` feature maps.

    Args:
        running: Whether batch norm, once trained, uses the statistics that it gathered while training, or still those of
            the images at hand.
    """
    if name in ("instance", "instance_affine"):
        return nn.InstanceNorm2d(channels, affine=name == "instance_affine")
    if name == "batch":
        return nn.BatchNorm2d(channels, track_running_stats=running)
    return nn.Identity()


def needs_bias(name: Normalization) -> bool:
    """Whether a convolution in front of the layer carries a bias.

    In front of batch norm it is redundant and left out; in front of instance norm it is redundant too, but the official
    implementation has it, and with it the parameter counts of the paper's networks.
    """
    return name != "batch"

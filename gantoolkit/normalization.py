"""The normalisations that generators and discriminators choose from by name."""

from typing import Literal

from torch import nn

Normalization = Literal["instance", "batch", "none"]
"""`instance` has no weights and no running statistics (Zhu et al. 2017, §4); `batch` has both."""


def normalization(name: Normalization, channels: int) -> nn.Module:
    """A normalisation layer for `channels` feature maps."""
    if name == "instance":
        return nn.InstanceNorm2d(channels)
    if name == "batch":
        return nn.BatchNorm2d(channels)
    return nn.Identity()


def needs_bias(name: Normalization) -> bool:
    """Whether a convolution in front of the layer carries a bias.

    In front of batch norm it is redundant and left out; in front of instance norm it is redundant too, but the official
    implementation has it, and with it the parameter counts of the paper's networks.
    """
    return name != "batch"

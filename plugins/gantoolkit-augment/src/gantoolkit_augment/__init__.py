"""Differentiable augmentation of the discriminator's input: DiffAugment, and ADA, which adapts its probability."""

from gantoolkit_augment.discriminators import AdaptiveAugment, DiffAugment
from gantoolkit_augment.operations import blend_colors, cut_out, mix_channels, move, warp

__all__ = ["AdaptiveAugment", "DiffAugment", "blend_colors", "cut_out", "mix_channels", "move", "warp"]

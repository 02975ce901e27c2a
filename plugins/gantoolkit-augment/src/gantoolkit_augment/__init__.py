"""Differentiable augmentation of what discriminators see: DiffAugment, and ADA, which adapts its strength."""

from gantoolkit_augment.discriminators import AdaptiveAugment, DiffAugment
from gantoolkit_augment.operations import blend_colors, cut_out, mix_channels, move, warp

__all__ = ["AdaptiveAugment", "DiffAugment", "blend_colors", "cut_out", "mix_channels", "move", "warp"]

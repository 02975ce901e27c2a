"""Adversarial losses, which judge logits, and image losses, which compare images."""

from gantoolkit.blocks.losses.adversarial import LSGAN, NLL, WGANGP, Hinge
from gantoolkit.blocks.losses.image import L1, L2, SSIM, Features

__all__ = ["L1", "L2", "LSGAN", "NLL", "SSIM", "WGANGP", "Features", "Hinge"]

"""A U-Net generator with a transformer bottleneck, and a discriminator on features of a pretrained network."""

from gantoolkit_vit.discriminator import ProjectedDiscriminator
from gantoolkit_vit.generator import ViTUNet

__all__ = ["ProjectedDiscriminator", "ViTUNet"]

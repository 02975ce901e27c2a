"""A generator with a transformer at its bottom, and a discriminator that looks through a pretrained network."""

from gantoolkit_vit.discriminator import ProjectedDiscriminator
from gantoolkit_vit.generator import ViTUNet

__all__ = ["ProjectedDiscriminator", "ViTUNet"]

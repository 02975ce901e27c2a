"""Networks that translate images."""

from gantoolkit.generators.resnet import ResNetGenerator
from gantoolkit.generators.unet import UNetGenerator

__all__ = ["ResNetGenerator", "UNetGenerator"]

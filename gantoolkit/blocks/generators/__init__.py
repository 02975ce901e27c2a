"""Networks that translate images, and a pair that renders a latent in two domains."""

from gantoolkit.blocks.generators.coupled import CoupledGenerator
from gantoolkit.blocks.generators.resnet import ResNetGenerator
from gantoolkit.blocks.generators.unet import UNetGenerator

__all__ = ["CoupledGenerator", "ResNetGenerator", "UNetGenerator"]

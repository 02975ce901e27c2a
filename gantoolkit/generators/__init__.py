"""Networks that translate images, and the pair that renders a latent in two domains."""

from gantoolkit.generators.coupled import CoupledGenerator
from gantoolkit.generators.resnet import ResNetGenerator
from gantoolkit.generators.unet import UNetGenerator

__all__ = ["CoupledGenerator", "ResNetGenerator", "UNetGenerator"]

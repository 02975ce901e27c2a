"""Networks that distinguish real images from fakes."""

from gantoolkit.blocks.discriminators.coupled import CoupledDiscriminator
from gantoolkit.blocks.discriminators.patchgan import PatchGANDiscriminator
from gantoolkit.blocks.discriminators.pixelgan import PixelGANDiscriminator

__all__ = ["CoupledDiscriminator", "PatchGANDiscriminator", "PixelGANDiscriminator"]

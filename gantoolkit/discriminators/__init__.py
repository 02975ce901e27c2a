"""Networks that tell real images from fakes."""

from gantoolkit.discriminators.coupled import CoupledDiscriminator
from gantoolkit.discriminators.patchgan import PatchGANDiscriminator
from gantoolkit.discriminators.pixelgan import PixelGANDiscriminator

__all__ = ["CoupledDiscriminator", "PatchGANDiscriminator", "PixelGANDiscriminator"]

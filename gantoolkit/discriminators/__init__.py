"""Networks that tell real images from fakes."""

from gantoolkit.discriminators.patchgan import PatchGANDiscriminator
from gantoolkit.discriminators.pixelgan import PixelGANDiscriminator

__all__ = ["PatchGANDiscriminator", "PixelGANDiscriminator"]

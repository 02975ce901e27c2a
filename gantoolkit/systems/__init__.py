"""Systems: which networks there are, which losses train them, and which of them translates."""

from gantoolkit.systems.cyclegan import CycleGAN
from gantoolkit.systems.pix2pix import Pix2Pix

__all__ = ["CycleGAN", "Pix2Pix"]

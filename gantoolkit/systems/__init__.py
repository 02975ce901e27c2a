"""Systems: networks, the losses that train them, and the directions in which they translate."""

from gantoolkit.systems.bigan import BiGAN
from gantoolkit.systems.cogan import CoGAN
from gantoolkit.systems.cyclegan import CycleGAN
from gantoolkit.systems.gatys import Gatys
from gantoolkit.systems.pix2pix import Pix2Pix
from gantoolkit.systems.simgan import SimGAN

__all__ = ["BiGAN", "CoGAN", "CycleGAN", "Gatys", "Pix2Pix", "SimGAN"]

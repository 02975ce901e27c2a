"""GAN blocks for image translation: generators, discriminators, losses and pools that recipes compose into CycleGAN."""

from importlib.metadata import version

__version__ = version("gantoolkit")

"""Contrastive unpaired translation (Park et al. 2020): the loss PatchNCE, the system CUT, and its recipes."""

from gantoolkit_cut.patchnce import PatchHeads, PatchNCE, encode
from gantoolkit_cut.recipes import cut, fastcut
from gantoolkit_cut.system import CUT

__all__ = ["CUT", "PatchHeads", "PatchNCE", "cut", "encode", "fastcut"]

"""The registry of blocks, and the signature of a block as its schema."""

from gantoolkit.registry.registry import API_VERSION, Entry, Registry
from gantoolkit.registry.signature import Effect, Parameter, Slot, read_parameters

__all__ = ["API_VERSION", "Effect", "Entry", "Parameter", "Registry", "Slot", "read_parameters"]

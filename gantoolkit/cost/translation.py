"""The memory that translating an image takes, from a network without memory: nothing is allocated."""

import torch
from torch import nn

from gantoolkit.cost.ledger import Ledger
from gantoolkit.runtime.memory_format import bare_copy

__all__ = ["count_translation_bytes"]


def count_translation_bytes(network: nn.Module, shape: tuple[int, ...]) -> int:
    """The most bytes of tensors that are alive at once as a generator translates, beside its weights.

    Args:
        network: A generator, on any device.
        shape: Of what it is given, (N, in_channels, H, W). Its numbers are taken to be float32.
    """
    with torch.inference_mode():
        sketch = bare_copy(network).to("meta")
    with Ledger() as ledger, torch.inference_mode():
        ledger.start_peak()
        before = ledger.now
        sketch(torch.zeros(shape, device="meta"))
        return ledger.peak - before

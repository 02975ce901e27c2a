"""Choose and apply the memory format (channels_last or contiguous) of images, features and weights."""

import copy
import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from gantoolkit.runtime.precision import Precision

__all__ = ["bare_copy", "memory_format_of", "set_memory_format"]


def memory_format_of(precision: Precision, device: torch.device) -> torch.memory_format:
    """The fastest memory format: channels_last, except for float32 on CUDA, whose kernels prefer contiguous tensors."""
    plain = device.type != "cpu" and precision == "fp32"
    return torch.contiguous_format if plain else torch.channels_last


def set_memory_format(network: nn.Module, memory_format: torch.memory_format, *, supported: bool) -> None:
    """Convert a network to `memory_format` in place. A network that does not support it gets contiguous tensors instead.

    Layers of an unknown network may not support channels_last. An example is PyTorch's own instance norm: on a CPU, its
    gradient for a single image is wrong if the incoming gradient is in channels_last (observed in torch 2.15).

    Args:
        supported: Whether the network supports channels_last, as its trait `channels_last` declares.
    """
    if memory_format == torch.contiguous_format:
        return
    if supported:
        network.to(memory_format=memory_format)
    else:
        network.forward = functools.partial(_call_contiguous, network.forward)


def bare_copy(network: nn.Module) -> nn.Module:
    """Copy a network without the memory format and precision set by `set_memory_format` and `set_precision`."""
    copied = copy.deepcopy(network)
    for layer in copied.modules():
        vars(layer).pop("forward", None)
    return copied


def _call_contiguous(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    args, kwargs = _make_contiguous((args, kwargs))
    return _make_contiguous(forward(*args, **kwargs))


def _make_contiguous(tree: Any) -> Any:
    return tree_map_only(Tensor, lambda image: _Contiguous.apply(image) if image.is_floating_point() else image, tree)


class _Contiguous(torch.autograd.Function):
    """Make a tensor contiguous, and its gradient too."""

    @staticmethod
    def forward(ctx: Any, images: Tensor) -> Tensor:
        return images.contiguous() if not images.is_contiguous() else images.view_as(images)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _Contiguous.apply(*gradients)

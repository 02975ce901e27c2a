"""In which order images, features and weights lie in memory: what is the same pixel together, or what is the same channel."""

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
    """The order that is soonest done: channels_last, but for float32 on CUDA, whose kernels want the other one."""
    plain = device.type != "cpu" and precision == "fp32"
    return torch.contiguous_format if plain else torch.channels_last


def set_memory_format(network: nn.Module, memory_format: torch.memory_format, *, supported: bool) -> None:
    """Let a network work in that order, in place, if it has a true attribute `channels_last`; else in the usual one.

    A network that does not say so may hold what is not made for another order. PyTorch's own instance norm is an example: on
    a CPU, its gradient for a single image is wrong where the gradient that comes in is in channels_last (seen in
    torch 2.15).
    """
    if memory_format == torch.contiguous_format:
        return
    if supported:
        network.to(memory_format=memory_format)
    else:
        network.forward = functools.partial(_in_usual_order, network.forward)


def bare_copy(network: nn.Module) -> nn.Module:
    """A copy that computes as it was built, whatever order or precision the network has been given since."""
    copied = copy.deepcopy(network)
    for layer in copied.modules():
        vars(layer).pop("forward", None)
    return copied


def _in_usual_order(forward: Callable[..., Any], *images: Any, **more: Any) -> Any:
    images, more = _order((images, more))
    return _order(forward(*images, **more))


def _order(images: Any) -> Any:
    return tree_map_only(Tensor, lambda image: _Contiguous.apply(image) if image.is_floating_point() else image, images)


class _Contiguous(torch.autograd.Function):
    """Images in the usual order, and their gradient too."""

    @staticmethod
    def forward(ctx: Any, images: Tensor) -> Tensor:
        return images.contiguous() if not images.is_contiguous() else images.view_as(images)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _Contiguous.apply(*gradients)

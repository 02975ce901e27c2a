"""Weights that are rounded to bfloat16 or float16 once, where autocast would round them in every forward pass."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

__all__ = ["RoundedWeights", "round_in_place", "rounded_parameters", "rounded_weights", "shared_weights"]

_ROUNDING_FORWARDS = (
    *(layer.forward for layer in (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)),
    *(layer.forward for layer in (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)),
)
"""Of layers whose inputs autocast rounds."""


def rounded_parameters(network: nn.Module, device: torch.device) -> list[str]:
    """The names of the weights and biases that autocast rounds: those of convolutions and linear layers."""
    names = {
        parameter: f"{layer}.{name}".removeprefix(".")
        for layer, module in _rounding_layers(network, device).items()
        for name, parameter in module.named_parameters(recurse=False)
    }
    return list(names.values())  # one name of a parameter that several layers share


def _rounding_layers(network: nn.Module, device: torch.device) -> dict[str, nn.Module]:
    """The convolutions and linear layers whose parameters autocast rounds, by name.

    Winograd's algorithm transforms weights before it rounds them, so a `Conv3x3` that may use it is not among them.
    """
    from gantoolkit.layers.convolution import Conv3x3

    layers: dict[str, nn.Module] = {}
    for name, layer in network.named_modules():
        if type(layer).forward not in _ROUNDING_FORWARDS or "forward" in vars(layer):
            continue
        # A parametrized weight, or one that a hook computes, is not stored in the layer.
        computes_weights = parametrize.is_parametrized(layer) or layer._forward_pre_hooks
        transforms_weights = device.type == "cpu" and isinstance(layer, Conv3x3) and layer.algorithm == "winograd"
        if not computes_weights and not transforms_weights:
            layers[name] = layer
    return layers


def round_in_place(network: nn.Module, dtype: torch.dtype, device: torch.device) -> None:
    """Store the `rounded_parameters` in `dtype`. Under autocast, results stay the same bit for bit.

    For networks with the trait `narrow_weights` that are not trained any more.
    """
    for layer in _rounding_layers(network, device).values():
        layer.to(dtype)


class RoundedWeights:
    """Rounded copies of the weights of networks, for all their forward passes until `clear`.

    The gradients of all passes are added in the narrow dtype and rounded back once.
    """

    def __init__(self) -> None:
        self._copies: dict[object, tuple[Tensor, ...]] = {}

    def get(self, weights: Sequence[Tensor], dtype: torch.dtype) -> tuple[Tensor, ...]:
        """Copies of `weights` in `dtype`, through which gradients flow back to them: to all of them, or to none."""
        key = (dtype, weights[0].requires_grad, *map(id, weights))
        if key not in self._copies:
            self._copies[key] = _Round.apply(dtype, *weights)
        return self._copies[key]

    def clear(self) -> None:
        """Forget all copies, because weights have changed."""
        self._copies.clear()


_shared: ContextVar[RoundedWeights | None] = ContextVar("_shared", default=None)


@contextmanager
def shared_weights() -> Iterator[RoundedWeights]:
    """Context manager inside which forward passes with gradient share rounded weights. Clear them when weights change."""
    weights = RoundedWeights()
    token = _shared.set(weights)
    try:
        yield weights
    finally:
        _shared.reset(token)
        weights.clear()


def rounded_weights(network: nn.Module, names: Sequence[str], dtype: torch.dtype) -> dict[str, Tensor] | None:
    """The shared copies of the named parameters of a network; None where every pass rounds its own."""
    shared = _shared.get()
    # A copy that was made without gradient must not be found by a pass with gradient.
    if shared is None or not names or not torch.is_grad_enabled() or torch.compiler.is_compiling():
        return None
    parameters = {name: network.get_parameter(name) for name in names}
    # Copies are made together, and then all of them need a gradient or none: a frozen part of a trained network is left out.
    trained = {name: parameter for name, parameter in parameters.items() if parameter.requires_grad}
    parameters = trained or parameters
    return dict(zip(parameters, shared.get(list(parameters.values()), dtype), strict=True))


class _Round(torch.autograd.Function):
    """Copy tensors to another dtype, all in a few launches; so is the gradient."""

    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.dtypes = [tensor.dtype for tensor in tensors]
        ctx.set_materialize_grads(False)
        return tuple(_copy(tensors, [dtype] * len(tensors)))

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        indices = [index for index, gradient in enumerate(gradients) if gradient is not None]
        copies = iter(_copy([gradients[index] for index in indices], [ctx.dtypes[index] for index in indices]))
        return None, *(None if gradient is None else next(copies) for gradient in gradients)


def _copy(tensors: Sequence[Tensor], dtypes: Sequence[torch.dtype]) -> list[Tensor]:
    if torch.is_grad_enabled():  # create_graph: the gradient has to be differentiable
        return [tensor.to(dtype) for tensor, dtype in zip(tensors, dtypes, strict=True)]
    copies = [torch.empty_like(tensor, dtype=dtype) for tensor, dtype in zip(tensors, dtypes, strict=True)]
    if copies:
        torch._foreach_copy_(copies, list(tensors))  # pyright: ignore[reportPrivateImportUsage]
    return copies

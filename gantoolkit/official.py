"""Weights with the key names of the official PyTorch implementation, brought into our networks.

The official networks and ours run the same layers in the same order, so layers are matched by their place and not by
their names: what shifts or renames keys there (dropout inside a residual block, `module.` and `_orig_mod.` prefixes)
does not matter.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from gantoolkit.errors import CheckpointError

__all__ = ["load_official_weights"]

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def load_official_weights(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy an official network's state dictionary into ours, in place.

    Args:
        network: A `resnet`, `unet`, `patchgan` or `pixelgan` with the same sizes.
        weights: By official names, such as `model.10.conv_block.1.weight`. Running statistics of an instance norm, which
            checkpoints of 2018 carry, are dropped.

    Raises:
        CheckpointError: When the layers do not agree, naming the first that does not.
    """
    ours = _by_layer(network.state_dict())
    keep_statistics = any("running_mean" in layer for _, layer in ours)
    theirs = _by_layer(weights if keep_statistics else _without_statistics(weights))
    if len(ours) != len(theirs):
        raise CheckpointError(
            f"the file holds {len(theirs)} layers with weights, this {type(network).__name__} has {len(ours)}; "
            "check the number of blocks, the depth and the norm"
        )
    with torch.no_grad():
        for (our_name, our_layer), (their_name, their_layer) in zip(ours, theirs, strict=True):
            our_shapes, their_shapes = _shapes(our_layer), _shapes(their_layer)
            if our_shapes != their_shapes:
                raise CheckpointError(
                    f"layer '{their_name}' of the file has {their_shapes}, where {type(network).__name__} has "
                    f"{our_shapes} ('{our_name}'); check width, channels and norm"
                )
            for name, tensor in our_layer.items():
                tensor.copy_(their_layer[name])


def _by_layer(state: Mapping[str, Tensor]) -> list[tuple[str, dict[str, Tensor]]]:
    """Tensors by layer, the layers in the order in which the network runs them."""
    layers: dict[str, dict[str, Tensor]] = {}
    for key, tensor in state.items():
        layer, _, name = key.rpartition(".")
        layers.setdefault(layer, {})[name] = tensor
    return sorted(layers.items(), key=lambda item: _place(item[0]))


def _place(layer: str) -> list[tuple[int, int | str]]:
    # Numbers compare as numbers. Of our names `downs` stands before `ups`, as it should.
    return [(0, int(part)) if part.isdigit() else (1, part) for part in layer.split(".")]


def _without_statistics(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: tensor for key, tensor in weights.items() if not key.endswith(_STATISTICS)}


def _shapes(layer: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in sorted(layer.items())}

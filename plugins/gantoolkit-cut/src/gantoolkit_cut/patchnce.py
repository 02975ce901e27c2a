"""PatchNCE: a patch of a translation is nearer to the patch that it came from than to others (Park et al. 2020, §3)."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional


class PatchNCE:
    """Cross-entropy of finding each query's own key among all keys of its image (§3, equations 2 and 3).

    Args:
        temperature: The paper's τ.
    """

    def __init__(self, *, temperature: float = 0.07) -> None:
        self.temperature = temperature

    def __call__(self, queries: Tensor, keys: Tensor) -> Tensor:
        """The mean over patches; `queries` and `keys` are (N, patches, C) of length 1, and keys get no gradient."""
        likeness = queries @ keys.detach().transpose(1, 2) / self.temperature
        own = torch.arange(keys.shape[1], device=keys.device).expand(len(keys), -1)
        return functional.cross_entropy(likeness.flatten(0, 1), own.flatten())


class PatchHeads(nn.Module):
    """The network F: two linear layers for each layer of features, whose output has length 1 (§3, appendix C.2).

    Args:
        channels: Channels of each layer's features.
        width: Numbers in an output.
    """

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Linear(count, width), nn.ReLU(), nn.Linear(width, width)) for count in channels
        )

    def forward(self, features: Sequence[Tensor], places: Sequence[Tensor]) -> list[Tensor]:
        """For each layer (N, C, H, W), its vectors (N, patches, width) at `places`, which count positions row by row."""
        return [
            functional.normalize(head(layer.flatten(2)[:, :, place].transpose(1, 2)), dim=-1)
            for head, layer, place in zip(self.heads, features, places, strict=True)
        ]


def draw_places(features: Sequence[Tensor], count: int) -> list[Tensor]:
    """For each layer, at most `count` different positions, from torch's global generator."""
    return [torch.randperm(layer[0, 0].numel(), device=layer.device)[:count] for layer in features]


class _Enough(Exception):  # noqa: N818 (no error: the layers that were asked for are there)
    pass


def encode(network: nn.Module, images: Tensor, layers: Sequence[str]) -> list[Tensor]:
    """The outputs of some of a network's modules, by name; what comes after the last of them is not computed.

    Raises:
        ValueError: When the network has no such module, with those that it has.
    """
    modules = dict(network.named_modules())
    for layer in layers:
        if layer not in modules:
            known = ", ".join(name for name in modules if name and name.count(".") < 2)
            raise ValueError(f"nce_layers: {type(network).__name__} has no module '{layer}'; it has {known}")
    found: dict[str, Tensor] = {}

    def keep(name: str, module: nn.Module, inputs: object, output: Tensor) -> None:
        found[name] = output
        if len(found) == len(layers):
            raise _Enough

    hooks = [modules[layer].register_forward_hook(partial(keep, layer)) for layer in layers]
    try:
        network(images)
    except _Enough:
        pass
    finally:
        for hook in hooks:
            hook.remove()
    return [found[layer] for layer in layers]

"""The contrastive loss PatchNCE: a translated patch has to resemble its source patch (Park et al. 2020, §3)."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional


class PatchNCE:
    """Cross-entropy of classifying each query's own key among all keys of its image (§3, equations 2 and 3).

    Args:
        temperature: The paper's τ.
    """

    def __init__(self, *, temperature: float = 0.07) -> None:
        self.temperature = temperature

    def __call__(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Compute the mean over patches of unit vectors `queries` and `keys`, (N, patches, C); keys get no gradient."""
        similarity = queries @ keys.detach().transpose(1, 2) / self.temperature
        targets = torch.arange(keys.shape[1], device=keys.device).expand(len(keys), -1)
        return functional.cross_entropy(similarity.flatten(0, 1), targets.flatten())


class PatchHeads(nn.Module):
    """The network F: two linear layers per feature layer, with outputs normalized to length 1 (§3, appendix C.2).

    Args:
        channels: Channels of each layer's features.
        width: Dimensions of an output.
    """

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Linear(count, width), nn.ReLU(), nn.Linear(width, width)) for count in channels
        )

    def forward(self, features: Sequence[Tensor], positions: Sequence[Tensor]) -> list[Tensor]:
        """Map each layer (N, C, H, W) to vectors (N, patches, width) at `positions`, which are indices in row-major order."""
        return [
            functional.normalize(head(layer.flatten(2)[:, :, indices].transpose(1, 2)), dim=-1)
            for head, layer, indices in zip(self.heads, features, positions, strict=True)
        ]


def draw_positions(features: Sequence[Tensor], count: int) -> list[Tensor]:
    """Draw at most `count` distinct positions per layer from torch's global generator."""
    return [torch.randperm(layer[0, 0].numel(), device=layer.device)[:count] for layer in features]


class _Stop(Exception):  # noqa: N818 (not an error: all requested layers are computed)
    pass


def encode(network: nn.Module, images: Tensor, layers: Sequence[str]) -> list[Tensor]:
    """Compute the outputs of the named modules of a network, and stop after the last of them.

    Raises:
        ValueError: If the network has no such module; the message lists its modules.
    """
    modules = dict(network.named_modules())
    for layer in layers:
        if layer not in modules:
            known = ", ".join(name for name in modules if name and name.count(".") < 2)
            raise ValueError(f"nce_layers: {type(network).__name__} has no module '{layer}'; it has {known}")
    outputs: dict[str, Tensor] = {}

    def record(name: str, module: nn.Module, inputs: object, output: Tensor) -> None:
        outputs[name] = output
        if len(outputs) == len(layers):
            raise _Stop

    hooks = [modules[layer].register_forward_hook(partial(record, layer)) for layer in layers]
    try:
        network(images)
    except _Stop:
        pass
    finally:
        for hook in hooks:
            hook.remove()
    return [outputs[layer] for layer in layers]

"""Helpers that build a system from a recipe, compute its losses, and count the forward passes of its networks."""

from typing import Any

import torch
from torch import nn

from gantoolkit.recipes import Recipe
from gantoolkit.recipes.building import build_system, initialize


def system_of(recipe: Recipe) -> Any:
    resolved = recipe.resolve()
    system = build_system(resolved)
    initialize(system, resolved)
    return system


def losses_of(system: Any, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    shared = system.forward(batch)
    return {
        f"{phase.name}/{name}": term for phase in system.phases for name, term in phase.losses(batch, shared).items()
    }


def count_calls(networks: dict[str, nn.Module]) -> dict[str, list[int]]:
    """Record the batch size of every forward pass, by network."""
    calls: dict[str, list[int]] = {name: [] for name in networks}
    for name, network in networks.items():
        network.register_forward_pre_hook(lambda module, inputs, name=name: calls[name].append(len(inputs[0])))
    return calls

"""A capture that CUDA refuses, and what the process can still do afterwards."""

from typing import Any

import torch
from _helpers.recipes import TINY_RECIPES
from torch import Tensor, nn

from fakecuda.cases import print_outcomes
from fakecuda.journal import record
from fakecuda.stepping import STEPS_UNTIL_REPLAY, open_steps
from fakecuda.values import ignore_values
from gantoolkit.blocks.discriminators import PatchGANDiscriminator
from gantoolkit.recipes import Recipe

DEVICE = torch.device("cuda")
BLOCK_BYTES = 200_000_000


class ReadingDiscriminator(PatchGANDiscriminator):
    """Reads a value of the device, for which the host has to wait."""

    def forward(self, images: Tensor) -> Tensor:
        logits = super().forward(images)
        return logits * (1.0 if float(logits.detach().mean()) < 1e9 else 2.0)


def take_steps(recipe: Recipe) -> dict[str, Any]:
    """Take steps with capture."""
    with open_steps(recipe.swap({"training.capture": True}), DEVICE) as steps, record() as journal:
        steps.take_several(STEPS_UNTIL_REPLAY + 2)
    return {"launches": len(journal.launches), "replays": len(journal.replays)}


def refuse() -> dict[str, Any]:
    """A run whose capture is refused."""
    return take_steps(
        TINY_RECIPES["cyclegan"].swap(discriminator={"name": ReadingDiscriminator, "width": 4, "layers": 1})
    )


def draw() -> dict[str, Any]:
    """Random numbers, dropout and random latents on the device."""
    images = torch.randn(4, 4, device=DEVICE)
    nn.functional.dropout(images, 0.5)
    torch.rand(4, device=DEVICE, generator=torch.Generator(DEVICE))
    return {}


def empty_cache() -> dict[str, Any]:
    """Free memory that no tensor uses."""
    block = torch.empty(BLOCK_BYTES, dtype=torch.uint8, device=DEVICE)
    held = torch.cuda.memory_reserved()
    del block
    torch.cuda.empty_cache()
    return {"freed": held - torch.cuda.memory_reserved()}


def next_run() -> dict[str, Any]:
    """A run with dropout, whose capture is not refused."""
    return take_steps(TINY_RECIPES["cyclegan"].swap({"generator.dropout": 0.5}))


def main() -> None:
    ignore_values()
    print_outcomes(
        {
            "refused": refuse,
            "random numbers": draw,
            "empty cache": empty_cache,
            "next run": next_run,
            "refused again": refuse,
            "random numbers again": draw,
        }
    )


if __name__ == "__main__":
    main()

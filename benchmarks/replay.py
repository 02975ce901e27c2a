"""Replay records of the official PyTorch implementation in float64, and print the differences.

    python -m benchmarks.replay PREFIX... --device cuda

A PREFIX is the path of a record without its suffix: `PREFIX.json` contains options, losses and final norms,
`PREFIX.safetensors` the initial weights and the images of each step. Each record is replayed with and without batched forward
passes. The exit code is 1 if a relative difference exceeds 1e-10, unless rounding decides that value: where a gradient is about
as small as its own rounding error, Adam, which divides by it, turns the error into an update of any size. Such values are found
by a second replay, in which the last bits of the initial weights differ, and are listed.
"""

import argparse
import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from gantoolkit.official import load_official_weights
from gantoolkit.plugins import NetworkTraits, read_traits
from gantoolkit.recipes import Recipe, cyclegan, pix2pix
from gantoolkit.recipes.block_spec import bind
from gantoolkit.recipes.building import build_system
from gantoolkit.runtime.device import select_device
from gantoolkit.runtime.memory_format import set_memory_format
from gantoolkit.training import Trainer

CPU = torch.device("cpu")
TOLERANCE = 1e-10
ROUNDING_NOISE = 1e-6
"""Smaller norms belong to biases before instance norm, whose gradient is noise: there, the absolute difference counts."""

PERTURBATION = 2.0**-50
"""Relative changes of the initial weights that stand for rounding errors: four units in the last place of float64."""
MARGIN = 10
"""A value may differ by this many times the change that the perturbation causes."""

NETWORKS = {
    "CycleGANModel": {"netG_A": "G_AB", "netG_B": "G_BA", "netD_A": "D_B", "netD_B": "D_A"},
    "Pix2PixModel": {"netG": "G_AB", "netD": "D"},
}
# Official name → our logged name and a factor for our value: the official pix2pix logs the parts of D before halving.
LOSSES = {
    "CycleGANModel": {
        "G_A": ("G/adversarial_B", 1),
        "G_B": ("G/adversarial_A", 1),
        "cycle_A": ("G/cycle_A", 1),
        "cycle_B": ("G/cycle_B", 1),
        "idt_A": ("G/identity_B", 1),
        "idt_B": ("G/identity_A", 1),
        "D_A": ("D/D_B", 1),
        "D_B": ("D/D_A", 1),
    },
    "Pix2PixModel": {
        "G_GAN": ("G/adversarial_B", 1),
        "G_L1": ("G/image_B", 1),
        "D_real": ("D/D_real", 2),
        "D_fake": ("D/D_fake", 2),
    },
}


def main(arguments: list[str]) -> int:
    """Replay each record with both settings, print one line each, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prefixes", nargs="+", type=Path, metavar="PREFIX")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(arguments)
    device = select_device(options.device)
    is_equal = True
    for prefix in options.prefixes:
        for batched in (True, False):
            result = replay(prefix, batched=batched, device=device)
            is_equal &= result.difference <= TOLERANCE
            words = "batched " if batched else "separate"
            print(f"{prefix.name} {words}: {result.difference:.2e} at {result.where}")
            for name, difference in result.sensitive.items():
                print(f"    {name} differs by {difference:.2e}, which rounding explains")
    return int(not is_equal)


@dataclass(frozen=True)
class Comparison:
    """The differences between a replay and its record.

    Args:
        difference: The largest relative difference of a value that rounding does not decide.
        where: The name of that value.
        sensitive: The relative differences above `TOLERANCE` of values that rounding decides.
    """

    difference: float
    where: str
    sensitive: Mapping[str, float] = field(default_factory=dict)


def replay(
    prefix: Path,
    *,
    batched: bool,
    device: torch.device = CPU,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> Comparison:
    """Replay a record, and compare losses, learning rates and final norms.

    Args:
        batched: Whether independent images pass through a network together.
        device: The device of the networks.
        memory_format: The memory format of networks and images; in channels_last a CUDA device uses the fused kernels.
    """
    record = json.loads(prefix.with_name(prefix.name + ".json").read_text())
    tensors = load_file(prefix.with_name(prefix.name + ".safetensors"))
    expected = _recorded_values(record)

    def run(initial: Mapping[str, Tensor]) -> dict[str, float]:
        return _run(record, initial, batched=batched, device=device, memory_format=memory_format)

    values = run(tensors)
    differences = {name: _difference(values[name], value) for name, value in expected.items()}
    suspects = {name: difference for name, difference in differences.items() if not difference <= TOLERANCE}
    sensitive: dict[str, float] = {}
    if suspects:
        others = run(_perturb(tensors))
        changes = {name: _difference(others[name], values[name]) for name in suspects}
        sensitive = {name: suspects[name] for name, change in changes.items() if suspects[name] <= MARGIN * change}
    where = max(differences.keys() - sensitive.keys(), key=lambda name: differences[name])
    return Comparison(differences[where], where, sensitive)


def _run(
    record: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    *,
    batched: bool,
    device: torch.device,
    memory_format: torch.memory_format,
) -> dict[str, float]:
    """Train as the record did; returns the values of `_recorded_values`, by the same names."""
    names = NETWORKS[record["model"]]
    recipe = recipe_of(record, batched=batched).resolve()
    system = build_system(recipe)
    for network in system.networks.values():
        network.to(device, torch.float64)
        set_memory_format(network, memory_format, supported=read_traits(network, NetworkTraits).channels_last)
    for official, ours in names.items():
        start = f"init/{official}/"
        weights = {key.removeprefix(start): value for key, value in tensors.items() if key.startswith(start)}
        load_official_weights(system.networks[ours], weights)
    trainer = Trainer(
        system,
        optimizer=bind("optimizers", recipe.optimizer),
        scheduler=bind("schedulers", recipe.scheduler)(),
        epochs=recipe.training.epochs,
        memory_format=memory_format,
    )
    values: dict[str, float] = {}
    for step in range(len(record["losses"])):
        trainer.begin_epoch(step // record["steps_per_epoch"])
        batch = {domain: tensors[f"batch/{domain}"][step].to(device, torch.float64) for domain in "AB"}
        losses = trainer.step(batch, step).losses
        values[f"step {step}: lr"] = trainer.learning_rates["G"]
        for official, (ours, factor) in LOSSES[record["model"]].items():
            values[f"step {step}: {official}"] = float(losses.get(ours, torch.zeros(()))) * factor
    for official, ours in names.items():
        # By position, as the weights were loaded: in the order of the official names in the record.
        keys = [key for key in record["final_parameter_norms"] if key.startswith(f"{official}/")]
        norms = [float(torch.linalg.vector_norm(t.double())) for t in system.networks[ours].state_dict().values()]
        values |= zip(keys, norms, strict=True)
    return values


def _recorded_values(record: Mapping[str, Any]) -> dict[str, float]:
    losses = {
        f"step {step}: {name}": losses[name]
        for step, losses in enumerate(record["losses"])
        for name in ("lr", *LOSSES[record["model"]])
        if name in losses
    }
    return losses | record["final_parameter_norms"]


def _perturb(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Change the initial weights in their last bits, at random."""
    generator = torch.Generator().manual_seed(0)

    def change(tensor: Tensor) -> Tensor:
        noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
        return tensor.double() * (1 + PERTURBATION * noise)

    return {
        name: change(tensor) if name.startswith("init/") and tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
    }


def recipe_of(record: Mapping[str, Any], *, batched: bool) -> Recipe:
    """The recipe with the options of a record."""
    options = record["options"]
    if options["netG"].startswith("resnet"):
        blocks = int(options["netG"].removeprefix("resnet_").removesuffix("blocks"))
        generator = {"name": "resnet", "blocks": blocks}
    else:
        generator = {"name": "unet", "depth": {"unet_128": 7, "unet_256": 8}[options["netG"]]}
    generator |= {"width": options["ngf"], "norm": options["norm"]}
    if options["netD"] == "pixel":
        discriminator = {"name": "pixelgan"}
    else:
        discriminator = {"name": "patchgan", "layers": options["n_layers_D"] if options["netD"] == "n_layers" else 3}
    discriminator |= {"width": options["ndf"], "norm": options["norm"]}
    common = {
        "generator": generator,
        "discriminator": discriminator,
        "adversarial_loss": {"lsgan": "lsgan", "vanilla": "nll"}[options["gan_mode"]],
        "optimizer.lr": options["lr"],
        "optimizer.beta1": options["beta1"],
        "scheduler.decay_epochs": options["n_epochs_decay"],
        "training.epochs": options["n_epochs"] + options["n_epochs_decay"],
        "training.batch_size": record["batch_size"],
        "batched": batched,
    }
    if record["model"] == "Pix2PixModel":
        return pix2pix().swap(common, image_weight=options["lambda_L1"])
    forward, backward, identity = options["lambda_A"], options["lambda_B"], options["lambda_identity"]
    return cyclegan().swap(
        common,
        cycle_weight=[forward, backward],
        # There, idt_B = G_B(A) is weighted with lambda_A; that is our identity in A.
        identity_weight=[forward * identity, backward * identity],
        **{"image_pool.size": options["pool_size"]},
    )


def _difference(value: float, expected: float) -> float:
    """The relative difference; for rounding noise, the absolute one, scaled so that `ROUNDING_NOISE` becomes `TOLERANCE`."""
    if not math.isfinite(value):
        return math.inf  # a NaN would be smaller than no other difference
    if abs(expected) < ROUNDING_NOISE and abs(value) < ROUNDING_NOISE:
        return abs(value - expected) / ROUNDING_NOISE * TOLERANCE
    return abs(value - expected) / max(abs(expected), abs(value))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

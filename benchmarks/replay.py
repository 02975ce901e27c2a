"""Replay records of the official PyTorch implementation in float64, and print the differences.

    python -m benchmarks.replay PREFIX... --device cuda

A PREFIX is the path of a record without its suffix: `PREFIX.json` contains options, losses and final norms,
`PREFIX.safetensors` the initial weights and the images of each step. Each record is replayed with and without batched forward
passes. The exit code is 1 if a relative difference exceeds 1e-10.
"""

import argparse
import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from gantoolkit.official import load_official_weights
from gantoolkit.plugins import NetworkTraits, System, read_traits
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
    worst = 0.0
    for prefix in options.prefixes:
        for batched in (True, False):
            difference, where = replay(prefix, batched=batched, device=device)
            worst = max(worst, difference)
            print(f"{prefix.name} {'batched ' if batched else 'separate'}: {difference:.2e} at {where}")
    return int(not worst <= TOLERANCE)


def replay(
    prefix: Path,
    *,
    batched: bool,
    device: torch.device = CPU,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> tuple[float, str]:
    """Replay a record; return the largest relative difference of losses, learning rates and final norms, and its name.

    Args:
        batched: Whether independent images pass through a network together.
        device: The device of the networks.
        memory_format: The memory format of networks and images; in channels_last a CUDA device uses the fused kernels.
    """
    record = json.loads(prefix.with_name(prefix.name + ".json").read_text())
    tensors = load_file(prefix.with_name(prefix.name + ".safetensors"))
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
    differences: dict[str, float] = {}
    for step, expected in enumerate(record["losses"]):
        trainer.begin_epoch(step // record["steps_per_epoch"])
        batch = {domain: tensors[f"batch/{domain}"][step].to(device, torch.float64) for domain in "AB"}
        losses = trainer.step(batch, step).losses
        differences[f"step {step}: lr"] = _relative(trainer.learning_rates["G"], expected["lr"])
        for official, (ours, factor) in LOSSES[record["model"]].items():
            if official in expected:
                value = float(losses.get(ours, torch.zeros(()))) * factor
                differences[f"step {step}: {official}"] = _relative(value, expected[official])
    differences |= _compare_norms(system, names, record["final_parameter_norms"])
    where = max(differences, key=lambda key: differences[key])
    return differences[where], where


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


def _compare_norms(system: System, names: Mapping[str, str], expected: Mapping[str, float]) -> dict[str, float]:
    """Compare norms by position, as the weights were loaded: in the order of the official names in the record."""
    differences: dict[str, float] = {}
    for official, ours in names.items():
        theirs = {key: norm for key, norm in expected.items() if key.startswith(f"{official}/")}
        norms = [float(torch.linalg.vector_norm(t.double())) for t in system.networks[ours].state_dict().values()]
        for (key, norm), value in zip(theirs.items(), norms, strict=True):
            is_noise = norm < ROUNDING_NOISE
            # Scaled so that 1e-6 of noise counts as much as the tolerance of other values.
            differences[key] = abs(value - norm) / ROUNDING_NOISE * TOLERANCE if is_noise else _relative(value, norm)
    return differences


def _relative(value: float, expected: float) -> float:
    if not math.isfinite(value):
        return math.inf  # a NaN would be smaller than no other difference
    return abs(value - expected) / max(abs(expected), abs(value), 1e-300)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

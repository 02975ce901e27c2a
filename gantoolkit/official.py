"""Weights with the key names of the official PyTorch implementation, brought into our networks.

The official networks and ours run the same layers in the same order, so layers are matched by their place and not by
their names: what shifts or renames keys there (dropout inside a residual block, `module.` and `_orig_mod.` prefixes)
does not matter.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from gantoolkit.errors import CheckpointError
from gantoolkit.files.untrusted_weights import read_weights
from gantoolkit.plugins import Direction
from gantoolkit.recipes import Recipe, find_recipe
from gantoolkit.recipes.building import build_system
from gantoolkit.runs import write_generator

__all__ = ["Converted", "OfficialGenerator", "convert_official", "load_official_weights", "recognize_generator"]

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
_PREFIXES = ("module.", "_orig_mod.")
_DROPOUT = 0.5  # the official code knows no other
_RESIDUAL = re.compile(r"\d+\.(?P<name>[A-Za-z_]\w*)\.(?P<place>\d+)$")


@dataclass(frozen=True)
class OfficialGenerator:
    """What a file of official weights turned out to hold.

    Args:
        block: The generator that it fits, as a recipe writes it.
        in_channels: Channels of the images that it translates.
        out_channels: Channels of its translations.
        findings: In words, what was recognized and what is mended.
    """

    block: dict[str, Any]
    in_channels: int
    out_channels: int
    findings: tuple[str, ...]


def recognize_generator(weights: Mapping[str, Tensor]) -> OfficialGenerator:
    """Find out from names and shapes which official generator a state dictionary belongs to.

    Raises:
        CheckpointError: When it is no generator of the official code, saying what it looks like.
    """
    findings = [f"the prefix '{prefix}' of the names is left out" for prefix in _PREFIXES if _has_part(weights, prefix)]
    layers = _by_layer(weights)
    convolutions = [(name, layer) for name, layer in layers if _dimensions(layer) == 4]
    shapes = [tuple(layer["weight"].shape) for _, layer in convolutions]
    norms = [layer for _, layer in layers if _dimensions(layer) == 1]
    statistics = [layer for _, layer in layers if "running_mean" in layer]
    biased = all("bias" in layer for _, layer in convolutions)
    if not norms:
        norm = "instance"
    elif biased:
        norm = "instance_affine"
        findings.append(f'its {len(norms)} instance norms have weights (norm = "instance_affine"), which are kept')
    else:
        norm = "batch"
    if statistics and norm != "batch":
        findings.append(
            f"running statistics of {len(statistics)} instance norms, which the official code wrote for a while in 2018 and "
            "never used, are dropped"
        )
    if _is_resnet(shapes):
        block = {"name": "resnet", "blocks": (len(shapes) - 6) // 2, "width": shapes[0][0], "norm": norm}
        findings.insert(0, f"a ResNet generator with {block['blocks']} blocks, width {block['width']}, norm {norm}")
        residual = [found for name, _ in convolutions if (found := _RESIDUAL.search(name))]
        renamed = sorted({found["name"] for found in residual} - {"conv_block"})
        if renamed:
            findings.append(
                f"its residual blocks name their layers '{renamed[0]}' instead of 'conv_block'; order decides"
            )
        if any(found["place"] == "6" for found in residual):
            block["dropout"] = _DROPOUT
            findings.append(
                "a dropout layer in each residual block shifts the names after it; it is off when translating"
            )
        return OfficialGenerator(block, shapes[0][1], shapes[-1][0], tuple(findings))
    if _is_unet(shapes):
        depth = len(shapes) // 2
        block = {"name": "unet", "depth": depth, "width": shapes[0][0], "norm": norm}
        findings.insert(0, f"a U-Net generator with {depth} halvings, width {block['width']}, norm {norm}")
        if norm == "batch":  # pix2pix
            block |= {"dropout": _DROPOUT, "noise_at_test": True}
            findings.append(
                "as in the official test, dropout stays on and batch norm takes the statistics of each image, so the running "
                "statistics are not used"
            )
        return OfficialGenerator(block, shapes[0][1], shapes[-1][1], tuple(findings))
    if shapes and shapes[-1][0] == 1 and shapes[-1][2:] in ((4, 4), (1, 1)):
        raise CheckpointError(
            "these are the weights of a discriminator (latest_net_D…); a generator's are needed (net_G…)"
        )
    seen = ", ".join("×".join(map(str, shape)) for shape in shapes[:3]) or "none"
    raise CheckpointError(
        f"these are the weights of no generator of the official code: its {len(shapes)} convolutions ({seen}, ...) are neither "
        "those of a ResNet (7×7, two 3×3, pairs of 3×3, two 3×3, 7×7) nor of a U-Net (4×4 throughout)"
    )


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


@dataclass(frozen=True)
class Converted:
    """A generator's file that was made, and in words what was found and mended on the way."""

    path: Path
    recipe: Recipe
    findings: tuple[str, ...]


def convert_official(source: str | Path, out: str | Path, *, direction: Literal["A2B", "B2A"] = "A2B") -> Converted:
    """Read an official CycleGAN or pix2pix generator (`latest_net_G_A.pth`) and write it as a generator's file.

    Args:
        source: A file of weights; Python objects in it are refused, not loaded.
        out: The file to write, `*.safetensors`.
        direction: What the new file calls its translation.

    Raises:
        CheckpointError: When the file cannot be read, holds no such generator, or the new one cannot be written.
    """
    source, out = Path(source), Path(out)
    if out.exists() and source.exists() and out.samefile(source):
        raise CheckpointError(f"{source}: would be overwritten by what is made of it; choose another --out")
    weights = read_weights(source)
    try:
        found = recognize_generator(weights)
    except CheckpointError as error:
        raise CheckpointError(f"{source}: {error}") from error
    pix2pix = found.block["name"] == "unet" and found.block["norm"] == "batch"
    channels = {Direction(direction).source: found.in_channels, Direction(direction).target: found.out_channels}
    changes = {
        "name": source.stem,
        "generator": found.block,
        "data.channels_A": channels["A"],
        "data.channels_B": channels["B"],
    }
    if pix2pix:
        changes["direction"] = direction
    recipe = find_recipe("pix2pix" if pix2pix else "cyclegan").swap(changes).resolve()
    network = build_system(recipe).directions[direction]
    load_official_weights(network, weights)
    write_generator(out, network, direction=direction, recipe=recipe, step=0, origin=source.name)
    return Converted(out, recipe, found.findings)


def _dimensions(layer: Mapping[str, Tensor]) -> int:
    return layer["weight"].ndim if "weight" in layer else 0


def _is_resnet(shapes: Sequence[tuple[int, ...]]) -> bool:
    if len(shapes) < 8 or len(shapes) % 2:
        return False
    width, out_channels = shapes[0][0], shapes[-1][0]
    wide = 4 * width
    expected = [(width, shapes[0][1], 7, 7), (2 * width, width, 3, 3), (wide, 2 * width, 3, 3)]
    expected += [(wide, wide, 3, 3)] * (len(shapes) - 6)
    expected += [(wide, 2 * width, 3, 3), (2 * width, width, 3, 3), (out_channels, width, 7, 7)]
    return list(shapes) == expected


def _is_unet(shapes: Sequence[tuple[int, ...]]) -> bool:
    depth = len(shapes) // 2
    if depth < 2 or len(shapes) % 2 or any(shape[2:] != (4, 4) for shape in shapes):
        return False
    # On the way up, each but the innermost sees its own features beside those of the way down.
    return shapes[depth][0] == shapes[depth - 1][0] and shapes[-1][0] == 2 * shapes[0][0]


def _has_part(weights: Mapping[str, Tensor], prefix: str) -> bool:
    return any(name.startswith(prefix) or f".{prefix}" in name for name in weights)


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

"""Import weights of the official PyTorch implementation of CycleGAN and pix2pix.

The official networks and ours run the same layers in the same order. Layers are therefore matched by position, not by name, so
that shifted or renamed keys (dropout inside a residual block, the prefixes `module.` and `_orig_mod.`) do not matter.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from gantoolkit.errors import CheckpointError
from gantoolkit.files.foreign_weights import describe_foreign_weights
from gantoolkit.files.paths import user_path
from gantoolkit.files.tensors import read_header
from gantoolkit.files.untrusted_weights import read_weights
from gantoolkit.plugins import Direction
from gantoolkit.recipes import Recipe, find_recipe
from gantoolkit.recipes.building import build_system
from gantoolkit.runs import write_generator

__all__ = ["ConversionResult", "OfficialGenerator", "convert_official", "load_official_weights", "recognize_generator"]

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
_PREFIXES = ("module.", "_orig_mod.")
_DROPOUT = 0.5  # the only rate in the official code
_RESIDUAL = re.compile(r"\d+\.(?P<name>[A-Za-z_]\w*)\.(?P<index>\d+)$")


@dataclass(frozen=True)
class OfficialGenerator:
    """An official generator, as recognized from its weights.

    Args:
        block: The matching generator block, in the form used in recipes.
        in_channels: Number of input channels.
        out_channels: Number of output channels.
        findings: What was recognized and what is adapted, in words.
    """

    block: dict[str, Any]
    in_channels: int
    out_channels: int
    findings: tuple[str, ...]


def recognize_generator(weights: Mapping[str, Tensor]) -> OfficialGenerator:
    """Determine from names and shapes which official generator a state dictionary belongs to.

    Raises:
        CheckpointError: When it is not a generator of the official code; the message describes the weights.
    """
    findings = [f"the prefix '{prefix}' of the names is removed" for prefix in _PREFIXES if _has_part(weights, prefix)]
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
        findings.append(f'its {len(norms)} instance norms have weights (norm = "instance_affine"), which are imported')
    else:
        norm = "batch"
    if statistics and norm != "batch":
        findings.append(
            f"running statistics of {len(statistics)} instance norms, which the official code saved for some time in 2018 but "
            "never used, are dropped"
        )
    is_blurred = any(name.endswith("filt") for name in weights)  # as in CUT
    if _is_resnet(shapes) and not is_blurred:
        block = {"name": "resnet", "blocks": (len(shapes) - 6) // 2, "width": shapes[0][0], "norm": norm}
        findings.insert(0, f"a ResNet generator with {block['blocks']} blocks, width {block['width']}, norm {norm}")
        residual = [match for name, _ in convolutions if (match := _RESIDUAL.search(name))]
        other_names = sorted({match["name"] for match in residual} - {"conv_block"})
        if other_names:
            findings.append(
                f"its residual blocks name their layers '{other_names[0]}' instead of 'conv_block'; layers are matched by order"
            )
        if any(match["index"] == "6" for match in residual):
            block["dropout"] = _DROPOUT
            findings.append(
                "a dropout layer in each residual block shifts the indices after it; dropout is inactive in translation"
            )
        return OfficialGenerator(block, shapes[0][1], shapes[-1][0], tuple(findings))
    if _is_unet(shapes):
        depth = len(shapes) // 2
        block = {"name": "unet", "depth": depth, "width": shapes[0][0], "norm": norm}
        findings.insert(0, f"a U-Net generator of depth {depth}, width {block['width']}, norm {norm}")
        if norm == "batch":  # pix2pix
            block |= {"dropout": _DROPOUT, "noise_at_test": True}
            findings.append(
                "as in the official test, dropout stays on and batch norm uses the statistics of each image instead of the "
                "running statistics"
            )
        return OfficialGenerator(block, shapes[0][1], shapes[-1][1], tuple(findings))
    if origin := describe_foreign_weights({name: tuple(tensor.shape) for name, tensor in _in_order(layers)}):
        raise CheckpointError(f"these are not the weights of an official generator; they look like {origin}")
    if shapes and shapes[-1][0] == 1 and shapes[-1][2:] in ((4, 4), (1, 1)):
        raise CheckpointError(
            "these are the weights of a discriminator (latest_net_D…); use those of a generator (latest_net_G…)"
        )
    first_shapes = ", ".join("×".join(map(str, shape)) for shape in shapes[:3]) or "none"
    raise CheckpointError(
        f"these are not the weights of an official generator: the {len(shapes)} convolutions ({first_shapes}, ...) are neither "
        "those of a ResNet (7×7, two 3×3, pairs of 3×3, two 3×3, 7×7) nor of a U-Net (4×4 throughout)"
    )


def load_official_weights(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy the state dictionary of an official network into one of ours, in place.

    Args:
        network: A `resnet`, `unet`, `patchgan` or `pixelgan` of the same size.
        weights: Tensors by official names, such as `model.10.conv_block.1.weight`. Running statistics of instance norms, which
            checkpoints of 2018 contain, are dropped.

    Raises:
        CheckpointError: When the layers do not match; the message names the first difference.
    """
    ours = _by_layer(network.state_dict())
    keep_statistics = any("running_mean" in layer for _, layer in ours)
    theirs = _by_layer(weights if keep_statistics else _without_statistics(weights))
    if len(ours) != len(theirs):
        raise CheckpointError(
            f"the file has {len(theirs)} layers with weights, this {type(network).__name__} has {len(ours)}; "
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
class ConversionResult:
    """A converted generator file, and in words what was recognized and adapted."""

    path: Path
    recipe: Recipe
    findings: tuple[str, ...]


def convert_official(
    source: str | Path, out: str | Path, *, direction: Literal["A2B", "B2A"] = "A2B"
) -> ConversionResult:
    """Convert an official CycleGAN or pix2pix generator (`latest_net_G_A.pth`) to a generator file.

    Args:
        source: A file of weights; a file with other Python objects is rejected without loading them.
        out: The file to write, `*.safetensors`.
        direction: The direction of the new file.

    Raises:
        CheckpointError: When the file cannot be read or contains no such generator, or the new file cannot be written.
    """
    source, out = user_path(source), user_path(out)
    if out.exists() and source.exists() and out.samefile(source):
        raise CheckpointError(f"{source}: would be overwritten by its own conversion; choose another --out")
    _refuse_own_file(source)
    weights = read_weights(source)
    try:
        official = recognize_generator(weights)
    except CheckpointError as error:
        raise CheckpointError(f"{source}: {error}") from error
    pix2pix = official.block["name"] == "unet" and official.block["norm"] == "batch"
    channels = {Direction(direction).source: official.in_channels, Direction(direction).target: official.out_channels}
    changes = {
        "name": source.stem,
        "generator": official.block,
        "data.channels_A": channels["A"],
        "data.channels_B": channels["B"],
    }
    if pix2pix:
        changes["direction"] = direction
    recipe = find_recipe("pix2pix" if pix2pix else "cyclegan").swap(changes).resolve()
    network = build_system(recipe).directions[direction]
    load_official_weights(network, weights)
    write_generator(out, network, direction=direction, recipe=recipe, step=0, origin=source.name)
    return ConversionResult(out, recipe, official.findings)


def _refuse_own_file(path: Path) -> None:
    """Refuse a generator file or a checkpoint of gantoolkit.

    Raises:
        CheckpointError: When the file is one.
    """
    try:
        header = read_header(path)
    except CheckpointError:
        return
    advice = (
        "it needs no import: gantoolkit translate FILE IMAGES" if "direction" in header else "translate with its run"
    )
    raise CheckpointError(f"{path}: is a file of gantoolkit itself ({header.get('format')}); {advice}")


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
    # In the decoder, all but the innermost convolution also receive the encoder's features.
    return shapes[depth][0] == shapes[depth - 1][0] and shapes[-1][0] == 2 * shapes[0][0]


def _has_part(weights: Mapping[str, Tensor], prefix: str) -> bool:
    return any(name.startswith(prefix) or f".{prefix}" in name for name in weights)


def _by_layer(state: Mapping[str, Tensor]) -> list[tuple[str, dict[str, Tensor]]]:
    """Group tensors by layer, in the order in which the network runs the layers."""
    layers: dict[str, dict[str, Tensor]] = {}
    for key, tensor in state.items():
        layer, _, name = key.rpartition(".")
        layers.setdefault(layer, {})[name] = tensor
    return sorted(layers.items(), key=lambda item: _sort_key(item[0]))


def _in_order(layers: Sequence[tuple[str, Mapping[str, Tensor]]]) -> Iterator[tuple[str, Tensor]]:
    for layer, tensors in layers:
        yield from ((f"{layer}.{name}".lstrip("."), tensor) for name, tensor in tensors.items())


def _sort_key(layer: str) -> list[tuple[int, int | str]]:
    # Indices compare as numbers. In our U-Net, `downs` sorts before `ups`, which is the order of execution.
    return [(0, int(part)) if part.isdigit() else (1, part) for part in layer.split(".")]


def _without_statistics(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: tensor for key, tensor in weights.items() if not key.endswith(_STATISTICS)}


def _shapes(layer: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in sorted(layer.items())}

"""Importing official weights: generators are recognized, adapted and explained; other files are rejected."""

import importlib.metadata
import importlib.util
import re
from pathlib import Path

import pytest
import torch
from _helpers.small import make_image, official_resnet
from safetensors.torch import save_file

from gantoolkit.blocks.discriminators import PatchGANDiscriminator
from gantoolkit.blocks.generators import ResNetGenerator, UNetGenerator
from gantoolkit.cli import main
from gantoolkit.data import to_tensor
from gantoolkit.errors import CheckpointError
from gantoolkit.inference import Translator
from gantoolkit.official import convert_official, load_official_weights


def official_unet(depth: int, width: int, batch_norm: bool) -> dict[str, torch.Tensor]:
    """Weights under the nested names and indices of the official U-Net."""
    channels = [width * min(2**level, 8) for level in range(depth)]
    weights: dict[str, torch.Tensor] = {}

    def norm(layer: str, count: int) -> None:
        if batch_norm:
            for name in ("weight", "bias", "running_mean"):
                weights[f"{layer}.{name}"] = torch.rand(count)
            weights[f"{layer}.running_var"] = torch.rand(count) + 0.5
            weights[f"{layer}.num_batches_tracked"] = torch.tensor(7)

    def convolution(layer: str, shape: tuple[int, ...], count: int, bias: bool) -> None:
        weights[f"{layer}.weight"] = torch.rand(*shape, 4, 4) - 0.5
        if bias:
            weights[f"{layer}.bias"] = torch.rand(count)

    prefix = "model.model"
    for level in range(depth):
        outermost, innermost = level == 0, level == depth - 1
        source = 3 if outermost else channels[level - 1]
        down = f"{prefix}.0" if outermost else f"{prefix}.1"
        convolution(down, (channels[level], source), channels[level], bias=not batch_norm)
        if not (outermost or innermost):
            norm(f"{prefix}.2", channels[level])
        inner = channels[level] if innermost else 2 * channels[level]
        target = 3 if outermost else channels[level - 1]
        up = f"{prefix}.{3 if outermost or innermost else 5}"
        convolution(up, (inner, target), target, bias=outermost or not batch_norm)
        if not outermost:
            norm(f"{prefix}.{4 if innermost else 6}", target)
        prefix += ".1.model" if outermost else ".3.model"
    return weights


def affine_renamed_resnet(blocks: int, width: int) -> dict[str, torch.Tensor]:
    """Weights as in another project, with affine instance norm and `block` instead of `conv_block`."""
    weights = official_resnet(blocks, width, False, True, "")
    renamed: dict[str, torch.Tensor] = {}
    for key, tensor in weights.items():
        if key.endswith("running_mean"):
            layer = key.removesuffix("running_mean").replace("conv_block", "block")
            renamed |= {f"{layer}weight": torch.rand_like(tensor), f"{layer}bias": torch.rand_like(tensor)}
        elif not key.endswith(("running_var", "num_batches_tracked")):
            renamed[key.replace("conv_block", "block")] = tensor
    for index, channels in ((10 + blocks + 1, 2 * width), (10 + blocks + 4, width)):
        renamed |= {f"model.{index}.weight": torch.rand(channels), f"model.{index}.bias": torch.rand(channels)}
    return renamed


@pytest.mark.parametrize(
    ("weights", "block", "words"),
    [
        (
            lambda: official_resnet(9, 2, False, False, ""),
            {"blocks": 9, "norm": "instance"},
            ["a ResNet generator with 9 blocks"],
        ),
        (lambda: official_resnet(6, 3, False, False, ""), {"blocks": 6, "width": 3}, ["with 6 blocks, width 3"]),
        (
            lambda: official_resnet(6, 2, True, False, "module."),
            {"dropout": 0.5},
            ["'module.' of the names", "dropout layer"],
        ),
        (
            lambda: official_resnet(2, 2, False, True, "_orig_mod."),
            {"blocks": 2},
            ["'_orig_mod.'", "2018", "are dropped"],
        ),
        (
            lambda: affine_renamed_resnet(3, 2),
            {"norm": "instance_affine"},
            ["norms have weights", "'block' instead of 'conv_block'"],
        ),
        (
            lambda: official_unet(5, 2, False),
            {"name": "unet", "depth": 5, "norm": "instance"},
            ["a U-Net generator of depth 5"],
        ),
        (
            lambda: official_unet(7, 2, True),
            {"name": "unet", "depth": 7, "norm": "batch", "noise_at_test": True},
            ["dropout stays on"],
        ),
    ],
)
@pytest.mark.parametrize("direction", ["A2B", "B2A"])
def test_generator_is_recognized_and_translates(weights, block, words, direction, tmp_path: Path) -> None:
    state = weights()
    torch.save(state, tmp_path / "latest_net_G.pth")
    result = convert_official(tmp_path / "latest_net_G.pth", tmp_path / "new.safetensors", direction=direction)
    parameters = result.recipe.system.parameters["generator"]
    assert {"name": parameters.name, **parameters.parameters}.items() >= block.items()
    for word in words:
        assert any(word in finding for finding in result.findings), (word, result.findings)
    translator = Translator.load(tmp_path / "new.safetensors")
    assert translator.direction == direction
    image = make_image(1, (130, 70))
    assert translator(image).size == image.size
    assert translator(image) == translator(image)
    # Each layer has its weights.
    network_class = ResNetGenerator if parameters.name == "resnet" else UNetGenerator
    expected = network_class(3, 3, **parameters.parameters)
    load_official_weights(expected, state)
    for ours, theirs in zip(translator.generator.network.parameters(), expected.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    first = next(
        tensor for key, tensor in state.items() if re.fullmatch(r"(\w+\.)?(model\.1|model\.model\.0)\.weight", key)
    )
    assert torch.equal(next(translator.generator.network.parameters()), first)


def test_pix2pix_uses_the_statistics_of_each_image(tmp_path: Path) -> None:
    """As in the official test, a translation does not depend on the rest of the batch."""
    torch.save(official_unet(5, 2, True), tmp_path / "net.pth")
    convert_official(tmp_path / "net.pth", tmp_path / "net.safetensors")
    translator = Translator.load(tmp_path / "net.safetensors")
    images = [make_image(seed, (32, 32)) for seed in (1, 2)]
    alone = translator(images[1])
    assert translator.translate(images)[1] == alone
    assert alone != make_image(2, (32, 32))


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (PatchGANDiscriminator(3, width=2).state_dict(), r"net\.pth: these are the weights of a discriminator"),
        ({"linear.weight": torch.zeros(3, 3)}, "the 0 convolutions"),
        (
            torch.nn.Conv2d(3, 8, 3).state_dict(),
            r"the 1 convolutions \(8×3×3×3, \.\.\.\) are neither those of a ResNet",
        ),
    ],
)
def test_other_weights_are_rejected(state, message: str, tmp_path: Path) -> None:
    torch.save(state, tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match=message):
        convert_official(tmp_path / "net.pth", tmp_path / "new.safetensors")
    assert not (tmp_path / "new.safetensors").exists()


def test_any_number_of_channels(tmp_path: Path) -> None:
    state = official_resnet(1, 2, False, False, "")
    state["model.1.weight"] = torch.rand(2, 4, 7, 7)
    torch.save(state, tmp_path / "net.pth")
    result = convert_official(tmp_path / "net.pth", tmp_path / "new.safetensors")
    assert result.recipe.data.channels_A == 4
    assert Translator.load(result.path, device="cpu").translate_tensor(torch.zeros(1, 4, 16, 16)).shape == (
        1,
        3,
        16,
        16,
    )


def test_command_prints_findings_and_writes_a_file_that_translates(tmp_path: Path, capsys) -> None:
    torch.save(official_resnet(1, 2, False, True, "module."), tmp_path / "latest_net_G_A.pth")
    make_image(1).save(tmp_path / "horse.png")
    assert main(["import", "official", str(tmp_path / "latest_net_G_A.pth")]) == 0
    out = capsys.readouterr().out
    assert "- a ResNet generator with 1 blocks, width 2, norm instance" in out
    file = tmp_path / "latest_net_G_A.safetensors"
    assert f"gantoolkit translate {file} IMAGES --out DIR" in out
    assert main(["translate", str(file), str(tmp_path / "horse.png"), "--out", str(tmp_path / "zebras")]) == 0
    assert (tmp_path / "zebras" / "horse.png").is_file()
    (tmp_path / "broken.pth").write_bytes(b"nothing")
    assert main(["import", "official", str(tmp_path / "broken.pth")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_third_party_checkpoint_translates_as_in_its_own_package(tmp_path: Path, capsys) -> None:
    """vintagify contains a CycleGAN generator with affine instance norm and other layer names; its code is the reference."""
    package = Path(importlib.metadata.distribution("vintagify").locate_file("vintagify"))
    checkpoint = package / "resources" / "G_A2B_epoch33.pth"
    spec = importlib.util.spec_from_file_location("vintagify_generator", package / "generator.py")
    theirs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(theirs)
    reference = theirs.ResnetGenerator().double().eval()
    reference.load_state_dict(torch.load(checkpoint, map_location="cpu", weights_only=True))
    assert main(["import", "official", str(checkpoint), "--out", str(tmp_path / "vintage.safetensors")]) == 0
    out = capsys.readouterr().out
    assert "9 blocks, width 64, norm instance_affine" in out
    assert "'block' instead of 'conv_block'" in out
    translator = Translator.load(tmp_path / "vintage.safetensors")
    translator.generator.network.double()
    image = to_tensor(make_image(1, (64, 48)))[None].double()
    with torch.inference_mode():
        torch.testing.assert_close(translator.translate_tensor(image), reference(image), rtol=0, atol=1e-12)


def test_the_source_is_never_overwritten(tmp_path: Path) -> None:
    save_file(official_resnet(1, 2, False, False, ""), tmp_path / "net.safetensors")
    before = (tmp_path / "net.safetensors").read_bytes()
    assert main(["import", "official", str(tmp_path / "net.safetensors")]) == 2
    assert (tmp_path / "net.safetensors").read_bytes() == before
    assert (
        main(["import", "official", str(tmp_path / "net.safetensors"), "--out", str(tmp_path / "new.safetensors")]) == 0
    )


def test_layers_compute_the_same_as_layers_built_from_the_weights(tmp_path: Path) -> None:
    """The first layers, built by hand from the file's weights, give the same features."""
    state = affine_renamed_resnet(2, 2)
    torch.save(state, tmp_path / "net.pth")
    convert_official(tmp_path / "net.pth", tmp_path / "new.safetensors")
    image = to_tensor(make_image(1, (40, 36)))[None]
    translation = Translator.load(tmp_path / "new.safetensors").translate_tensor(image)
    expected = torch.nn.Sequential(
        torch.nn.ReflectionPad2d(3),
        torch.nn.Conv2d(3, 2, 7),
        torch.nn.InstanceNorm2d(2, affine=True),
        torch.nn.ReLU(),
    )
    expected.load_state_dict(
        {f"{index}.{name}": state[f"model.{index}.{name}"] for index in (1, 2) for name in ("weight", "bias")}
    )
    network = Translator.load(tmp_path / "new.safetensors").generator.network
    torch.testing.assert_close(network.layers[:4](image), expected(image))
    assert translation.shape == image.shape

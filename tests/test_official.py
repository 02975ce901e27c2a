"""Equality with the official implementation: recorded runs, and the names of its weights."""

import pytest
import torch
from _helpers.small import official_resnet
from torch import nn

from benchmarks import replay
from gantoolkit.blocks.discriminators import PatchGANDiscriminator
from gantoolkit.blocks.generators import ResNetGenerator, UNetGenerator
from gantoolkit.errors import CheckpointError
from gantoolkit.official import load_official_weights


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("name", ["cyclegan_resnet9_lsgan", "pix2pix_unet128_vanilla"])
def test_recorded_steps_are_reproduced(name: str, batched: bool, shared) -> None:
    difference, where = replay.replay(shared / "golden" / name, batched=batched)
    assert difference <= replay.TOLERANCE, where


def test_replay_fails_when_a_value_differs(shared, tmp_path, capsys) -> None:
    for suffix in (".json", ".safetensors"):
        source = shared / "golden" / f"pix2pix_unet128_vanilla{suffix}"
        (tmp_path / f"record{suffix}").write_bytes(source.read_bytes())
    record = (tmp_path / "record.json").read_text()
    # Change the L1 loss of one step in the ninth digit.
    assert '"G_L1": 23.40591760716861' in record
    (tmp_path / "record.json").write_text(record.replace('"G_L1": 23.40591760716861', '"G_L1": 23.40591790716861'))
    assert replay.main([str(tmp_path / "record")]) == 1
    assert "step 0: G_L1" in capsys.readouterr().out


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
@pytest.mark.parametrize("dropout", [False, True])
@pytest.mark.parametrize("statistics", [False, True])
def test_all_variants_of_official_names(prefix: str, dropout: bool, statistics: bool) -> None:
    weights = official_resnet(11, 2, dropout, statistics, prefix)
    network = ResNetGenerator(3, 3, blocks=11, width=2)
    load_official_weights(network, weights)
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    # Block 9 is model.19, which sorts before model.2 as text.
    ninth = convolutions[3 + 2 * 9]
    assert torch.equal(ninth.weight, weights[f"{prefix}model.19.conv_block.1.weight"])
    assert torch.equal(convolutions[-1].bias, weights[f"{prefix}model.28.bias"])


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (ResNetGenerator(3, 3, blocks=2, width=2), "the file has 8 layers with weights, this ResNetGenerator has 10"),
        (ResNetGenerator(3, 3, blocks=1, width=4), "layer 'model.1' of the file has"),
        (ResNetGenerator(1, 3, blocks=1, width=2), "layer 'model.1' of the file has"),
    ],
)
def test_weights_of_another_network_are_rejected(network: nn.Module, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        load_official_weights(network, official_resnet(1, 2, False, False, ""))


@pytest.mark.parametrize(
    "network", [UNetGenerator(3, 3, depth=4, width=2), PatchGANDiscriminator(3, width=2, norm="batch")]
)
def test_our_names_sort_in_the_order_of_the_layers(network: nn.Module) -> None:
    copy = {name: torch.rand_like(tensor.float()).to(tensor.dtype) for name, tensor in network.state_dict().items()}
    load_official_weights(network, copy)
    assert all(torch.equal(tensor, copy[name]) for name, tensor in network.state_dict().items())

"""Equality with the official implementation: recorded runs, and the names of its weights."""

import json

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
    result = replay.replay(shared / "golden" / name, batched=batched)
    assert result.difference <= replay.TOLERANCE, result.where


@pytest.fixture
def changed_record(shared, tmp_path) -> str:
    """The prefix of a record in which the L1 loss of the first step and the norm of a bias differ in the ninth digit."""
    source = shared / "golden" / "pix2pix_unet128_vanilla"
    (tmp_path / "record.safetensors").write_bytes(source.with_suffix(".safetensors").read_bytes())
    record = json.loads(source.with_suffix(".json").read_text())
    record["losses"][0]["G_L1"] *= 1 + 1e-8
    record["final_parameter_norms"]["netD/model.11.bias"] *= 1 + 1e-9
    (tmp_path / "record.json").write_text(json.dumps(record))
    return str(tmp_path / "record")


def test_replay_fails_when_a_value_differs(changed_record: str, capsys) -> None:
    assert replay.main([changed_record]) == 1
    output = capsys.readouterr().out
    assert "1.00e-08 at step 0: G_L1" in output
    assert "rounding" not in output


def test_values_that_rounding_decides_are_listed_and_do_not_fail(changed_record: str, capsys, monkeypatch) -> None:
    """With weights that are rounded more, the ninth digit of the norm is uncertain, and that of the first loss is not."""
    monkeypatch.setattr(replay, "PERTURBATION", 1e-10)
    assert replay.main([changed_record]) == 1
    output = capsys.readouterr().out
    assert "1.00e-08 at step 0: G_L1" in output
    assert "netD/model.11.bias differs by 1.00e-09, which rounding explains" in output
    monkeypatch.setattr(replay, "PERTURBATION", 1e-5)
    assert replay.main([changed_record]) == 0
    assert "step 0: G_L1 differs by 1.00e-08, which rounding explains" in capsys.readouterr().out


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

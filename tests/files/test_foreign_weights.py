"""Files and weights of other projects: the message says whose they are and why they cannot be used."""

import argparse
import io
import pickle
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from _helpers.small import make_tiny, official_resnet
from safetensors.torch import save_file
from torch import nn

import gantoolkit
from gantoolkit.errors import CheckpointError
from gantoolkit.files.foreign_weights import describe_foreign_weights
from gantoolkit.files.untrusted_weights import read_weights
from gantoolkit.official import convert_official

State = dict[str, torch.Tensor]


def resnet(blocks: int = 2, width: int = 2, *, is_transposed: bool = True) -> State:
    """A ResNet generator whose enlarging convolutions are transposed or plain ones."""
    weights = official_resnet(blocks, width, False, False, "")
    for index, wide in ((10 + blocks, 4 * width), (13 + blocks, 2 * width)):
        sizes = (wide, wide // 2) if is_transposed else (wide // 2, wide)
        weights[f"model.{index}.weight"] = torch.rand(*sizes, 3, 3)
    return weights


def cut(*, is_transposed: bool) -> State:
    blurs = {"model.6.filt": torch.rand(4, 1, 3, 3), "model.9.filt": torch.rand(8, 1, 3, 3)}
    return resnet(is_transposed=is_transposed) | blurs


def pytorch_gan(blocks: int = 2) -> State:
    weights = resnet(blocks, is_transposed=False)
    return {name.replace("conv_block", "block"): tensor for name, tensor in weights.items()}


def pytorch_gan_unet() -> State:
    sizes = {"down1.model.0": (4, 3), "down2.model.0": (8, 4), "up1.model.0": (8, 4), "final.2": (3, 8)}
    return {f"{name}.weight": torch.rand(*size, 4, 4) for name, size in sizes.items()}


def pix2pix_hd() -> State:
    sizes = [(2, 3, 7), (4, 2, 3), (8, 4, 3), (16, 8, 3), (32, 16, 3), *[(32, 32, 3)] * 4]
    sizes += [(32, 16, 3), (16, 8, 3), (8, 4, 3), (4, 2, 3), (3, 2, 7)]
    return {f"model.{3 * index + 1}.weight": torch.rand(*size, size[-1]) for index, size in enumerate(sizes)}


def with_prefix(prefix: str, state: State) -> State:
    return {f"{prefix}.{name}": tensor for name, tensor in state.items()}


def convolutions(*names: str) -> State:
    return {f"{name}.weight": torch.rand(4, 4, 3, 3) for name in names}


FOREIGN: dict[str, tuple[Callable[[], object], str]] = {
    "CUT": (lambda: cut(is_transposed=False), "look like CUT's generator, which blurs .*--no_antialias"),
    "CUT, antialiased down only": (lambda: cut(is_transposed=True), "look like CUT's generator"),
    "CUT, in parallel": (lambda: with_prefix("module", cut(is_transposed=False)), "look like CUT's generator"),
    "CUT, discriminator": (
        lambda: {"model.0.weight": torch.rand(4, 3, 4, 4), "model.2.filt": torch.rand(4, 1, 3, 3)},
        "look like a discriminator of CUT; use its generator",
    ),
    "CUT, projection": (lambda: {"mlp_0.0.weight": torch.rand(4, 4)}, "the network F of CUT"),
    "PyTorch-GAN": (pytorch_gan, "enlarges by interpolation and convolutions, as in PyTorch-GAN"),
    "PyTorch-GAN, nine blocks": (lambda: pytorch_gan(9), "as in PyTorch-GAN"),
    "PyTorch-GAN, U-Net": (pytorch_gan_unet, "PyTorch-GAN's U-Net, whose last layer interpolates"),
    "pix2pixHD": (pix2pix_hd, "a ResNet that downsamples 4 times, as in pix2pixHD"),
    "MMGeneration": (
        lambda: {
            "meta": {"epoch": 1},
            "state_dict": with_prefix("generators.photo", resnet()) | with_prefix("generators.mask", resnet()),
        },
        "a whole model of MMGeneration or MMagic; save one of its generators",
    ),
    "U-GAT-IT": (
        lambda: {"genA2B": convolutions("DownBlock.1"), "disGA": convolutions("model.1")},
        "contains a dictionary with genA2B, disGA, not named tensors; it looks like U-GAT-IT's generator",
    ),
    "MUNIT": (
        lambda: {name: convolutions("enc_content.model.0.conv", "dec.model.0.conv") for name in "ab"},
        "contains a dictionary with a, b, not named tensors; it looks like MUNIT's generator",
    ),
    "UNIT": (lambda: {name: convolutions("enc.model.0.conv") for name in "ab"}, "it looks like UNIT's generator"),
    "CycleGAN-Turbo": (
        lambda: {"rank_unet": 8, "sd_encoder": {"conv_in.lora_A.weight": torch.rand(2, 2)}},
        "img2img-turbo .CycleGAN-Turbo.: changes to Stable Diffusion",
    ),
    "LoRA": (lambda: {"unet.mid_block.to_q.lora_A.weight": torch.rand(2, 2)}, "LoRA: changes to a diffusion model"),
    "diffusers": (
        lambda: convolutions("conv_in", "down_blocks.0.resnets.0.conv1"),
        "a diffusion model, as in diffusers",
    ),
    "StyleGAN": (
        lambda: {"synthesis.b4.conv1.weight": torch.rand(2, 2, 3, 3)},
        "StyleGAN, which generates images from noise",
    ),
    "Lightning": (
        lambda: {
            "pytorch-lightning_version": "2.0.0",
            "state_dict": with_prefix("g_ab", resnet()) | with_prefix("g_ba", resnet()),
        },
        r"several networks \(g_ab, g_ba\); save one of them: torch.save\(\{name.removeprefix\('g_ab.'\)",
    ),
    "several networks": (
        lambda: {"epoch": 3, "G": resnet(), "F": resnet()},
        r"contains a dictionary with epoch, G, F, not named tensors; it looks like several networks \(G, F\)",
    ),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_weights_of_other_projects_are_named(name: str, tmp_path: Path) -> None:
    make, message = FOREIGN[name]
    path = tmp_path / "weights.pth"
    torch.save(make(), path)
    with pytest.raises(CheckpointError, match=message) as caught:
        convert_official(path, tmp_path / "out.safetensors")
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out.safetensors").exists()


def test_every_network_of_several_can_be_imported_as_the_message_says(tmp_path: Path) -> None:
    state = with_prefix("g_ab", resnet()) | with_prefix("g_ba", resnet())
    torch.save(
        {name.removeprefix("g_ab."): tensor for name, tensor in state.items() if name.startswith("g_ab.")},
        tmp_path / "g",
    )
    assert (
        convert_official(tmp_path / "g", tmp_path / "out.safetensors")
        .findings[0]
        .startswith("a ResNet generator with 2")
    )


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "netG.", ""])
def test_official_weights_are_not_foreign(prefix: str) -> None:
    for weights in (official_resnet(9, 2, True, True, prefix), official_resnet(6, 2, False, False, prefix)):
        assert not describe_foreign_weights({name: tuple(tensor.shape) for name, tensor in weights.items()})


def zipped(*names: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        for name in names:
            file.writestr(name, b"content")
    return stream.getvalue()


def saved(value: object) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


def torch_script() -> bytes:
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated, and its files are still there
        torch.jit.save(torch.jit.trace(nn.Conv2d(1, 1, 1), torch.zeros(1, 1, 2, 2)), stream)
    return stream.getvalue()


def torch_export() -> bytes:
    stream = io.BytesIO()
    torch.export.save(torch.export.export(nn.Linear(1, 1), (torch.zeros(1, 1),)), stream)
    return stream.getvalue()


def numpy_archive() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, weights=np.zeros(2))
    return stream.getvalue()


class Persistence:
    """Pickled under the name of StyleGAN's module."""


FILES: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "TorchScript": ("a.pt", torch_script, "is a TorchScript program; save its weights"),
    "torch.export": ("a.pt2", torch_export, "is a program of torch.export"),
    "Keras": ("a.keras", lambda: zipped("config.json", "model.weights.h5"), "is a Keras model"),
    "NumPy": ("a.npz", numpy_archive, "is an archive of NumPy arrays"),
    "HDF5": ("a.h5", lambda: b"\x89HDF\r\n\x1a\n" + bytes(100), "is an HDF5 file"),
    "TensorFlow, index": (
        "model.index",
        lambda: bytes(100) + bytes.fromhex("57fb808b247547db"),
        "is a part of a TensorFlow",
    ),
    "TensorFlow, data": ("model.data-00000-of-00001", lambda: bytes(100), "is a part of a TensorFlow"),
    "TensorFlow, list": ("checkpoint", lambda: b'model_checkpoint_path: "a"\n', "is the list of a TensorFlow"),
    "TensorFlow Lite": ("a.tflite", lambda: struct.pack("<I", 28) + b"TFL3" + bytes(50), "is a TensorFlow Lite model"),
    "ONNX": ("a.onnx", lambda: b"\x08\x08\x12\x07pytorch" + bytes(100), "is an ONNX model"),
    "Lua Torch": ("a.t7", lambda: struct.pack("<iii", 4, 1, 3) + b"V 1" + bytes(50), "is a file of Lua Torch"),
    "StyleGAN": (
        "a.pkl",
        lambda: pickle.dumps({"G_ema": b"torch_utils.persistence", "weights": b"0" * 100}),
        "is a pickled StyleGAN",
    ),
    "Git LFS": (
        "a.pth",
        lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        "is a pointer of Git LFS",
    ),
    "web page": ("a.pth", lambda: b"\n\n<!DOCTYPE html><html><body></body></html>", "is a web page, not weights"),
    "network": (
        "a.pth",
        lambda: saved(nn.Conv2d(1, 1, 1)),
        r"other objects than tensors \(torch.nn.modules.conv.Conv2d\)",
    ),
    "Lightning, arguments": (
        "a.ckpt",
        lambda: saved({"state_dict": resnet(), "hyper_parameters": argparse.Namespace(lr=1)}),
        r"other objects than tensors \(argparse.Namespace\)",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_files_of_other_programs_are_named(name: str, tmp_path: Path) -> None:
    filename, make, message = FILES[name]
    (tmp_path / filename).write_bytes(make())
    with pytest.raises(CheckpointError, match=message) as caught:
        read_weights(tmp_path / filename)
    assert str(caught.value).startswith(f"{tmp_path / filename}: ")
    assert "\n" not in str(caught.value)


def test_a_real_onnx_file_is_named(command, dataset: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="onnx is not installed")
    gantoolkit.train(make_tiny(), dataset, tmp_path / "run", device="cpu", stop_at=1)
    command("export", tmp_path / "run", "--direction=A2B", "--format=onnx", "--out", tmp_path / "a.onnx")
    with pytest.raises(CheckpointError, match="is an ONNX model"):
        read_weights(tmp_path / "a.onnx")


def test_own_files_need_no_import(dataset: Path, tmp_path: Path) -> None:
    run = gantoolkit.train(make_tiny(), dataset, tmp_path / "run", device="cpu", stop_at=1)
    with pytest.raises(CheckpointError, match=r"is a file of gantoolkit itself .gantoolkit generator.*needs no import"):
        convert_official(run.find_generator("A2B"), tmp_path / "out.safetensors")
    with pytest.raises(
        CheckpointError, match=r"is a file of gantoolkit itself .gantoolkit checkpoint.*translate with its run"
    ):
        convert_official(run.folder.list_checkpoints()[0], tmp_path / "out.safetensors")
    save_file(resnet(), tmp_path / "plain.safetensors", {"format": "pt"})
    assert convert_official(tmp_path / "plain.safetensors", tmp_path / "out.safetensors").path.is_file()

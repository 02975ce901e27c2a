"""The official implementation, imported unchanged from a checkout, for comparison.

Its folder contains `models/` and `util/`: `torchbenchmark/models/pytorch_CycleGAN_and_pix2pix` in the repository
pytorch/benchmark. It is not part of this project.

On a CUDA device it is measured in two ways: `peer` is what its users run, whose convolutions PyTorch computes in TF32 by
default; `peer fp32` runs without TF32. In both cuDNN tries its algorithms, as the official `BaseModel` asks for.
"""

import importlib
import sys
import types
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gantoolkit.runtime.precision import backend_flags

__all__ = ["check_peer", "load_peer", "peer_flags", "peer_names", "step_peer"]


def load_peer(folder: Path, device: torch.device, *, identity: bool) -> Any:
    """Create its CycleGAN with its defaults (9 blocks, any batch size, pools of 50), ready to train.

    Args:
        identity: Whether to use the identity terms, with λ_identity = 0.5.
    """
    check_peer(folder)
    package = types.ModuleType("official")
    package.__path__ = [str(folder)]
    sys.modules["official"] = package  # its own __init__ needs the rest of that repository
    module = importlib.import_module("official.models.cycle_gan_model")
    options = types.SimpleNamespace(
        gpu_ids=[0] if device.type == "cuda" else [],
        device_type=device.type,
        isTrain=True,
        checkpoints_dir=".",
        name="peer",
        preprocess="resize_and_crop",
        direction="AtoB",
        lambda_A=10.0,
        lambda_B=10.0,
        lambda_identity=0.5 if identity else 0.0,
        input_nc=3,
        output_nc=3,
        ngf=64,
        ndf=64,
        netG="resnet_9blocks",
        netD="basic",
        n_layers_D=3,
        norm="instance",
        no_dropout=True,
        init_type="normal",
        init_gain=0.02,
        pool_size=50,
        gan_mode="lsgan",
        lr=2e-4,
        beta1=0.5,
    )
    with peer_flags("peer"):  # its constructor changes them
        return module.CycleGANModel(options)


def check_peer(folder: Path) -> None:
    """End the program with a message if `folder` is not that of the official implementation."""
    if not (folder / "models" / "cycle_gan_model.py").is_file():
        raise SystemExit(
            f"--peer {folder}: contains no models/cycle_gan_model.py; pass the folder of the official implementation"
        )


def peer_names(device: torch.device) -> tuple[str, ...]:
    """The ways to run it on a device."""
    return ("peer", "peer fp32") if device.type == "cuda" else ("peer",)


def peer_flags(name: str) -> AbstractContextManager[None]:
    """Context manager that sets PyTorch's flags for one of `peer_names`."""
    return backend_flags("fp32" if name == "peer fp32" else "tf32", try_algorithms=True)


def step_peer(peer: Any, batch: dict[str, Tensor]) -> None:
    """Run one training step."""
    peer.set_input({**batch, "A_paths": "", "B_paths": ""})
    peer.optimize_parameters()

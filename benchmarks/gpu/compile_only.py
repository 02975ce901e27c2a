"""Compile Triton kernels for a GPU that is not present: what is launched is compiled, and nothing runs."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from gantoolkit.layers import fused, kernels

__all__ = ["Launches", "compile_only", "kernels_on_meta_device"]


@dataclass
class Launches:
    """The kernels that were launched: `names` of all, and one entry in `variants` for each that was compiled."""

    names: Counter[str] = field(default_factory=Counter)
    variants: dict[str, tuple[str, Any]] = field(default_factory=dict)


@contextmanager
def compile_only(capability: int, cache: Path) -> Iterator[Launches]:
    """Context manager in which launches compile their kernel only, for a GPU of compute capability `capability` / 10.

    Args:
        capability: Such as 90.
        cache: Triton's cache folder. Tensors may be on any device.
    """
    # Imported on use, since PyTorch for CPUs comes without it.
    from triton import knobs
    from triton.backends.compiler import GPUTarget
    from triton.runtime import driver
    from triton.runtime.jit import JITFunction

    class Driver:
        def get_current_target(self) -> GPUTarget:
            return GPUTarget("cuda", capability, 32)

        def get_current_device(self) -> int:
            return capability  # Triton keeps what it compiled for each device

        def get_current_stream(self, device: int) -> int:
            return 0

    launches, run = Launches(), JITFunction.run

    def compile_launch(self: Any, *arguments: Any, warmup: bool, **options: Any) -> None:
        kernel: Any = run(self, *arguments, warmup=True, **options)
        launches.names[self.fn.__name__] += 1
        launches.variants.setdefault(kernel.hash, (self.fn.__name__, kernel))

    with (
        mock.patch.object(knobs.cache, "dir", str(cache)),
        mock.patch.object(JITFunction, "run", compile_launch),
        mock.patch.object(driver, "_active", Driver()),
    ):
        yield launches


@contextmanager
def kernels_on_meta_device() -> Iterator[None]:
    """Context manager in which kernels are launched for tensors on the meta device, too."""
    can_fuse = kernels.can_fuse

    def can_fuse_in_channels_last(features: Tensor, *, pad: int = 0) -> bool:
        # Convolutions of CUDA preserve channels_last; on the meta device they do not.
        return can_fuse(features.contiguous(memory_format=torch.channels_last), pad=pad)

    with (
        mock.patch.object(kernels, "has_kernels", return_value=True),
        mock.patch.object(fused, "can_fuse", can_fuse_in_channels_last),
    ):
        yield

"""Triton kernels compiled for a GPU that is not present: what is launched is compiled, and nothing runs."""

import os
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from gantoolkit.layers import fused, kernels
from gantoolkit.plugins import Batch, System


@dataclass(frozen=True)
class MachineCode:
    """What the assembler says about a kernel: registers per thread, bytes of spills per thread, memory instructions."""

    registers: int
    spill_bytes: int
    instructions: Counter[str]


@dataclass
class Launches:
    """The kernels that were launched: `names` of all, and one entry in `variants` for each that was compiled."""

    names: Counter[str] = field(default_factory=Counter)
    variants: dict[int, tuple[str, Any]] = field(default_factory=dict)


@contextmanager
def only_compile(capability: int, cache: Path) -> Iterator[Launches]:
    """Compile launches of kernels for a GPU of compute capability `capability` / 10. Tensors may be on any device."""
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
        kernel = run(self, *arguments, warmup=True, **options)
        launches.names[self.fn.__name__] += 1
        launches.variants.setdefault(id(kernel), (self.fn.__name__, kernel))

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_CACHE_DIR", str(cache))
        patch.setattr(JITFunction, "run", compile_launch)
        patch.setattr(driver, "_active", Driver())
        yield launches


@contextmanager
def kernels_on_meta_device() -> Iterator[None]:
    """Launch kernels for tensors on the meta device, whose convolutions do not preserve channels_last as those of CUDA do."""
    can_fuse = kernels.can_fuse

    def can_fuse_in_channels_last(features: torch.Tensor, *, pad: int = 0) -> bool:
        return can_fuse(features.contiguous(memory_format=torch.channels_last), pad=pad)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "has_kernels", lambda device: not kernels.is_traced())
        patch.setattr(fused, "can_fuse", can_fuse_in_channels_last)
        yield


def differentiate_phases(system: System, batch: Batch) -> None:
    """The forward and backward passes of a step."""
    learning = {
        name: [parameter for parameter in network.parameters() if parameter.requires_grad]
        for name, network in system.networks.items()
    }
    shared = system.forward(batch)
    for phase in system.phases:
        for name, parameters in learning.items():
            for parameter in parameters:
                parameter.requires_grad_(name in phase.trains)
        torch.stack(list(phase.losses(batch, shared).values())).sum().backward()


def read_machine_code(kernel: Any) -> MachineCode:
    """Disassemble a compiled kernel with the tools that Triton brings along."""
    from triton import knobs

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(kernel.asm["cubin"])
        tools = str(Path(knobs.nvidia.nvdisasm.path).parent)  # cuobjdump calls nvdisasm
        environment = {**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}
        usage, assembly = (
            subprocess.run(
                [knobs.nvidia.cuobjdump.path, option, path], env=environment, capture_output=True, text=True, check=True
            ).stdout
            for option in ("-res-usage", "-sass")
        )
    registers, stack, local = (int(re.findall(rf"{name}:(\d+)", usage)[0]) for name in ("REG", "STACK", "LOCAL"))
    return MachineCode(registers, stack + local, Counter(re.findall(r"\b(?:LDG|STG|LDL|STL|LDGSTS)\.[\w.]*", assembly)))

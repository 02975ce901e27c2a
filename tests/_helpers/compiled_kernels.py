"""The machine code of compiled Triton kernels, and the passes of a step that launch them."""

import os
import re
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gantoolkit.plugins import Batch, System


@dataclass(frozen=True)
class MachineCode:
    """What the assembler says about a kernel: registers per thread, bytes of spills per thread, memory instructions."""

    registers: int
    spill_bytes: int
    instructions: Counter[str]


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

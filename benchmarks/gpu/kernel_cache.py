"""Compile the Triton kernels of the paper's networks without a CUDA device, and install them on another machine.

    python -m benchmarks.gpu.kernel_cache compile kernels.zip --capability 90
    python -m benchmarks.gpu.kernel_cache unpack kernels.zip DIR          # then TRITON_CACHE_DIR=DIR

Steps and translations run on the meta device, where the kernels are only compiled. Kernels of other sizes or types are compiled
on the machine when they are first used, and so are all of them if its Triton is another version.
"""

import argparse
import json
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import triton
from torch import Tensor
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from gantoolkit.cost.step_cost import count_step, count_translations
from gantoolkit.layers import fused, kernels
from gantoolkit.recipes import Recipe, cyclegan

PRECISIONS = ("tf32", "bf16", "fp16")
"""In fp32, CUDA uses contiguous tensors and no kernels."""
BATCHES = (1, 16)
GROUP = "__grp__"
"""Prefix of the file that lists the files of a kernel."""


class Target:
    """Stands in for Triton's driver of a device that is not there.

    Args:
        capability: Its compute capability, such as 90.
    """

    def __init__(self, capability: int) -> None:
        self._target = GPUTarget("cuda", capability, 32)

    def get_current_target(self) -> GPUTarget:
        return self._target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


@contextmanager
def compile_only(capability: int) -> Iterator[set[Any]]:
    """Context manager in which launches compile their kernel only, also on the meta device; yields the compiled kernels."""
    run, compiled = JITFunction.run, set()

    def compile_kernel(self: Any, *arguments: Any, warmup: bool, **options: Any) -> None:
        kernel: Any = run(self, *arguments, warmup=True, **options)
        compiled.add(kernel.hash)

    with (
        mock.patch.object(driver, "_active", Target(capability)),
        mock.patch.object(JITFunction, "run", compile_kernel),
        mock.patch.object(kernels, "has_kernels", return_value=True),
        mock.patch.object(fused, "can_fuse", can_fuse_on_meta),
    ):
        yield compiled


def can_fuse_on_meta(features: Tensor, *, pad: int = 0) -> bool:
    """Whether a CUDA device uses the kernels: there, convolutions preserve channels_last; on the meta device they do not."""
    return kernels.can_fuse(features.contiguous(memory_format=torch.channels_last), pad=pad)


def recipe_of(precision: str, batch: int) -> Recipe:
    """CycleGAN as `benchmarks.training` measures it."""
    return cyclegan(identity_weight=5.0).swap({"training.precision": precision, "training.batch_size": batch}).resolve()


def compile_kernels(archive: Path, capability: int) -> int:
    """Compile for each precision and batch size; return the number of kernels."""
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(knobs.cache, "dir", folder):
        with compile_only(capability) as compiled:
            for precision in PRECISIONS:
                for batch in BATCHES:
                    recipe = recipe_of(precision, batch)
                    count_step(recipe)
                    count_translations(recipe)
        pack(Path(folder), archive)
    return len(compiled)


def pack(folder: Path, archive: Path) -> None:
    """Write the machine code and the metadata of a cache; Triton does without the intermediate languages."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(folder.rglob("*")):
            if path.suffix in (".cubin", ".json") and not path.name.startswith(GROUP):
                file.write(path, path.relative_to(folder))


def unpack(archive: Path, folder: Path) -> None:
    """Extract a cache into a folder. Triton lists the files of a kernel by their absolute paths."""
    folder = folder.resolve()
    with zipfile.ZipFile(archive) as file:
        file.extractall(folder)
    for metadata in folder.glob("*/*.json"):
        files = {path.name: str(path) for path in sorted(metadata.parent.iterdir())}
        metadata.with_name(f"{GROUP}{metadata.name}").write_text(json.dumps({"child_paths": files}))


def main() -> None:
    """Compile or unpack."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    compile_command = commands.add_parser("compile")
    compile_command.add_argument("archive", type=Path)
    compile_command.add_argument("--capability", type=int, default=90, help="compute capability without its point")
    unpack_command = commands.add_parser("unpack")
    unpack_command.add_argument("archive", type=Path)
    unpack_command.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "unpack":
        unpack(arguments.archive, arguments.folder)
        return
    count = compile_kernels(arguments.archive, arguments.capability)
    print(
        f"{arguments.archive.name}: {count} kernels, compiled for sm_{arguments.capability} by Triton {triton.__version__}"
    )


if __name__ == "__main__":
    main()

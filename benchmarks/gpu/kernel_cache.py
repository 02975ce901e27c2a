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
from pathlib import Path

import triton

from benchmarks.gpu.compile_only import compile_only, kernels_on_meta_device
from gantoolkit.cost.step_cost import count_step, count_translations
from gantoolkit.recipes import Recipe, cyclegan

PRECISIONS = ("tf32", "bf16", "fp16")
"""In fp32, CUDA uses contiguous tensors and no kernels."""
BATCHES = (1, 16)
GROUP = "__grp__"
"""Prefix of the file that lists the files of a kernel."""


def recipe_of(precision: str, batch: int) -> Recipe:
    """CycleGAN as `benchmarks.training` measures it."""
    return cyclegan(identity_weight=5.0).swap({"training.precision": precision, "training.batch_size": batch}).resolve()


def compile_kernels(archive: Path, capability: int) -> int:
    """Compile for each precision and batch size; return the number of kernels."""
    with tempfile.TemporaryDirectory() as folder:
        with compile_only(capability, Path(folder)) as launches, kernels_on_meta_device():
            for precision in PRECISIONS:
                for batch in BATCHES:
                    recipe = recipe_of(precision, batch)
                    count_step(recipe)
                    count_translations(recipe)
        pack(Path(folder), archive)
    return len(launches.variants)


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

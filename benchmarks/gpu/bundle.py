"""Prepare a folder with all that `python -m benchmarks.gpu` needs on a CUDA machine without a network.

    python -m benchmarks.gpu.bundle --golden ../shared/golden --peer DIR --device-python PYTHON --out build/gpu-bundle

That machine has Python 3.12 on x86-64 Linux, a PyTorch with CUDA and Triton, and the packages of preinstalled.txt. The folder
holds wheels of the others and of this project, so that blocks are found by their entry points; records of the official
implementation and its code, if they are given; kernels that are compiled ahead, if a Python with the machine's Triton is given;
and `run.sh`, which installs the wheels into a temporary folder and starts the command.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

from benchmarks.peer import check_peer

ROOT = Path(__file__).parents[2]
MAX_BYTES = 32 * 2**20
ROOTS = ("gantoolkit[testing]", "gantoolkit-augment", "gantoolkit-cut", "gantoolkit-vit", "sybil")
"""What is needed there; sybil is imported by the tests' conftest.py."""
PREINSTALLED = Path(__file__).with_name("preinstalled.txt")
OWN = frozenset({"gantoolkit", "gantoolkit-augment", "gantoolkit-cut", "gantoolkit-vit"})
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64", "manylinux1_x86_64")
PYTHON_VERSION = "3.12"
MACHINE = {
    "python_version": PYTHON_VERSION,
    "python_full_version": f"{PYTHON_VERSION}.0",
    "sys_platform": "linux",
    "platform_machine": "x86_64",
}
PEER_FOLDERS = ("models", "util")
RUN = """#!/bin/bash
# Runs all GPU checks and benchmarks, from the root of a checkout: bash {folder}/run.sh --out OUT
set -euo pipefail
if [ ! -d benchmarks/gpu ]; then echo "run this in the root of a checkout" >&2; exit 2; fi
bundle=$(cd "$(dirname "$0")" && pwd)
python=${{PYTHON:-python3}}
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
"$python" -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir --target "$site" "$bundle"/wheels/*.whl
export PYTHONPATH="$PWD:$site" TRITON_CACHE_DIR="$site/triton" GANTOOLKIT_CACHE="$site/cache"
{unpack}"$python" -m benchmarks.gpu{options} "$@"
"""


def main() -> int:
    """Write the bundle. Return 1 if it is too large."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "gpu-bundle", help="folder, which is replaced")
    parser.add_argument("--golden", type=Path, help="folder of records of the official implementation")
    parser.add_argument("--peer", type=Path, help="folder of the official implementation")
    parser.add_argument("--python-version", default=PYTHON_VERSION, help="of the machine")
    parser.add_argument("--device-python", type=Path, help="a Python with the machine's torch and Triton")
    arguments = parser.parse_args()
    if arguments.peer is not None:
        check_peer(arguments.peer)
    out: Path = arguments.out.resolve()
    shutil.rmtree(out, ignore_errors=True)
    (out / "wheels").mkdir(parents=True)
    requirements = sorted(list_missing(ROOTS))
    download_wheels(requirements, arguments.python_version, out / "wheels")
    build_wheels(out / "wheels")
    options = add_golden(arguments.golden, out) + add_peer(arguments.peer, out)
    unpack = add_kernels(arguments.device_python, out)
    shown = out.relative_to(ROOT) if out.is_relative_to(ROOT) else out
    (out / "run.sh").write_text(RUN.format(folder=shown, options=options, unpack=unpack))
    size = measure(out)
    print(f"{shown}: {size / 2**20:.1f} MiB, {len(requirements)} packages besides this project's")
    print(f"On the machine, in the root of the checkout: bash {shown}/run.sh --out OUT")
    if size > MAX_BYTES:
        print(f"error: {shown} has {size / 2**20:.1f} MiB; the limit is {MAX_BYTES // 2**20} MiB", file=sys.stderr)
    return int(size > MAX_BYTES)


def add_golden(golden: Path | None, out: Path) -> str:
    """Copy the records, if there are any; return the option for `benchmarks.gpu`."""
    if golden is None:
        print("No records of the official implementation: they are not replayed.")
        return ""
    copy_files(golden, out / "golden")
    return ' --golden "$bundle/golden"'


def add_peer(peer: Path | None, out: Path) -> str:
    """Copy what is imported of the official implementation, if it is there; return the option for `benchmarks.gpu`."""
    if peer is None:
        print("No official implementation (PEER=DIR): speed is measured without a comparison.")
        return ""
    for folder in PEER_FOLDERS:
        copy_files(peer / folder, out / "peer" / folder)
    if (peer / "LICENSE").is_file():
        shutil.copyfile(peer / "LICENSE", out / "peer" / "LICENSE")
    return ' --peer "$bundle/peer"'


def add_kernels(python: Path | None, out: Path) -> str:
    """Compile the kernels with a Python of the device, if there is one; return the line that unpacks them."""
    if python is None:
        print("No Python of the device (DEVICE_PYTHON=PYTHON): kernels are compiled there, which takes a minute.")
        return ""
    compile_kernels(python, out / "kernels.zip", out / "wheels")
    return '"$python" -m benchmarks.gpu.kernel_cache unpack "$bundle/kernels.zip" "$TRITON_CACHE_DIR"\n'


def list_missing(roots: Iterable[str]) -> set[str]:
    """The requirements that the machine lacks, as `name==version` with the versions that are installed here."""
    preinstalled = set(list_preinstalled())
    seen: set[tuple[str, str]] = set()
    missing: set[str] = set()

    def visit(requirement: Requirement) -> None:
        name = normalize(requirement.name)
        if name in preinstalled:
            return
        try:
            package = distribution(name)
        except PackageNotFoundError as error:
            raise SystemExit(f"{name} is required, but not installed here; run `make setup`") from error
        if name not in OWN:
            missing.add(f"{name}=={package.version}")
        for extra in ("", *requirement.extras):
            if (name, extra) not in seen:
                seen.add((name, extra))
                for child in read_requirements(package.requires or (), extra):
                    visit(child)

    for root in roots:
        visit(Requirement(root))
    return missing


def list_preinstalled() -> list[str]:
    """The packages of the machine."""
    return [line for line in PREINSTALLED.read_text().splitlines() if not line.startswith("#")]


def read_requirements(lines: Iterable[str], extra: str) -> Iterator[Requirement]:
    """The requirements of a package on the machine, for one of its extras or none."""
    for line in lines:
        requirement = Requirement(line)
        marker = requirement.marker
        if marker is None:
            if not extra:
                yield requirement
        elif marker.evaluate({**MACHINE, "extra": extra}) and (not extra or "extra" in str(marker)):
            yield requirement


def normalize(name: str) -> str:
    """The name of a package as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def download_wheels(requirements: Iterable[str], python_version: str, folder: Path) -> None:
    """Download the wheels of exactly these packages for the machine."""
    platforms = [option for platform in PLATFORMS for option in ("--platform", platform)]
    run_pip(
        "download",
        "--no-deps",
        "--only-binary=:all:",
        f"--python-version={python_version}",
        *platforms,
        f"--dest={folder}",
        *requirements,
    )


def build_wheels(folder: Path) -> None:
    """Build the wheels of this project and of its plugins."""
    projects = [ROOT, *sorted((ROOT / "plugins").glob("*/"))]
    run_pip("wheel", "--no-deps", "--no-build-isolation", f"--wheel-dir={folder}", *map(str, projects))


def run_pip(command: str, *arguments: str) -> None:
    """Run pip; exit with its message if it fails."""
    call = [sys.executable, "-m", "pip", command, "--quiet", "--disable-pip-version-check", *arguments]
    completed = subprocess.run(call, capture_output=True, text=True, check=False, cwd=ROOT)
    if completed.returncode:
        raise SystemExit(f"pip {command} failed:\n{completed.stderr.strip()}")


def compile_kernels(python: Path, archive: Path, wheels: Path) -> None:
    """Compile the Triton kernels of the paper's networks with another Python, to which the wheels are lent."""
    with tempfile.TemporaryDirectory() as site:
        install = ["-m", "pip", "install", "--quiet", "--no-index", "--no-deps", f"--target={site}"]
        subprocess.run([str(python), *install, *map(str, sorted(wheels.glob("*.whl")))], check=True)
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{site}"}
        command = [str(python), "-m", "benchmarks.gpu.kernel_cache", "compile", str(archive)]
        subprocess.run(command, cwd=ROOT, env=environment, check=True)


def copy_files(source: Path, target: Path) -> None:
    """Copy the files of a folder, but not its subfolders and permissions."""
    target.mkdir(parents=True)
    for path in source.iterdir():
        if path.is_file():
            shutil.copyfile(path, target / path.name)


def measure(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    sys.exit(main())

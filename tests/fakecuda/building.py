"""Compiles the stand-in, once per machine, and gives the environment of a program that runs on it."""

import hashlib
import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import platformdirs

__all__ = ["MissingRequirementError", "build", "environment"]

SOURCES = Path(__file__).parent / "src"
DRIVER = ("driver.cpp", "driver_unsupported.cpp")
NVRTC = ("nvrtc.cpp",)
"""Sources of libcuda.so.1 and libnvrtc, which PyTorch opens by name. The others, the runtime and the libraries upon it, become
one file, whose functions take the place of those of the libraries that PyTorch is linked with.
"""

HEADERS = (
    "cuda_runtime_api.h",
    "crt/host_config.h",
    "cublas_v2.h",
    "cudnn.h",
    "cupti.h",
    "nccl.h",
    "nv/target",
    "nvrtc.h",
)
WHEELS = (
    "torch",
    "nvidia-cublas",
    "nvidia-cuda-cccl",
    "nvidia-cuda-crt",
    "nvidia-cuda-cupti",
    "nvidia-cuda-nvrtc",
    "nvidia-cuda-runtime",
    "nvidia-cudnn-cu13",
    "nvidia-nccl-cu13",
)
"""The packages whose versions decide what the stand-in has to offer."""


class MissingRequirementError(Exception):
    """The stand-in cannot be built here; the message says why."""


def build() -> Path:
    """The folder of the compiled libraries. They are compiled if this machine has not compiled them before.

    Raises:
        MissingRequirementError: When PyTorch is built without CUDA, or a compiler or header is missing.
    """
    import torch

    if torch.version.cuda is None:
        raise MissingRequirementError(f"PyTorch {torch.__version__} is built without CUDA")
    compiler = shutil.which("g++")
    if compiler is None:
        raise MissingRequirementError("the compiler g++ is missing")
    headers = _find_headers()
    cache = Path(os.environ.get("FAKECUDA_CACHE") or platformdirs.user_cache_path("gantoolkit") / "fakecuda")
    folder = cache / _key(compiler)
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as temporary:
            target = Path(temporary) / "libraries"
            target.mkdir()
            _compile(compiler, headers, target)
            if not folder.is_dir():  # another process may have been faster
                target.rename(folder)
    return folder


def environment(
    *, devices: int = 1, memory: int | None = None, cudnn_workspace: int | None = None, verbose: bool = False
) -> dict[str, str]:
    """The variables of a process that runs on the stand-in, to be added to `os.environ`.

    They must be set when the process starts. The process must not be a shell, whose other commands would inherit them.

    Args:
        devices: Number of devices, each an "H100 80GB".
        memory: Bytes of each device; 80 GB if None.
        cudnn_workspace: Bytes that each convolution asks for; none if None.
        verbose: Whether standard error says why a capture became invalid.

    Raises:
        MissingRequirementError: When the stand-in cannot be built here.
    """
    folder = build()
    paths = [str(folder), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
    variables = {
        "LD_PRELOAD": " ".join(str(library) for library in sorted(folder.glob("lib[fn]*"))),
        "LD_LIBRARY_PATH": os.pathsep.join(paths),
        "TRITON_LIBCUDA_PATH": str(folder),
        # Launchers that Triton compiles refer to the driver that it was compiled with.
        "TRITON_CACHE_DIR": str(folder.parent / "triton"),
        "FAKECUDA_DEVICES": str(devices),
    }
    if memory is not None:
        variables["FAKECUDA_MEMORY"] = str(memory)
    if cudnn_workspace is not None:
        variables["FAKECUDA_CUDNN_WORKSPACE"] = str(cudnn_workspace)
    if verbose:
        variables["FAKECUDA_VERBOSE"] = "1"
    return variables


def _find_headers() -> list[Path]:
    """The folders of the headers in the wheels of the CUDA that PyTorch uses."""
    spec = importlib.util.find_spec("nvidia")
    roots = [Path(root) for root in spec.submodule_search_locations or ()] if spec else []
    folders = [folder for root in roots for folder in sorted(root.glob("*/include"))]
    for header in HEADERS:
        if not any((folder / header).is_file() for folder in folders):
            raise MissingRequirementError(
                f"the header {header} is missing; it comes with the wheels {', '.join(WHEELS)}"
            )
    return folders


def _key(compiler: str) -> str:
    digest = hashlib.sha256()
    for source in (Path(__file__), *sorted(SOURCES.iterdir())):
        digest.update(source.name.encode() + source.read_bytes())
    digest.update(subprocess.run([compiler, "--version"], capture_output=True, check=True).stdout)
    for wheel in WHEELS:
        digest.update(f"{wheel} {_version(wheel)}".encode())
    return digest.hexdigest()[:16]


def _version(wheel: str) -> str:
    try:
        return metadata.version(wheel)
    except metadata.PackageNotFoundError:  # its files may still be on the path
        return "unknown"


def _compile(compiler: str, headers: Sequence[Path], folder: Path) -> None:
    import torch

    others = [source.name for source in sorted(SOURCES.glob("*.cpp")) if source.name not in {*DRIVER, *NVRTC}]
    nvrtc = f"libnvrtc.so.{torch.version.cuda.partition('.')[0]}"
    for library, sources in (("libfakecuda.so", others), ("libcuda.so.1", DRIVER), (nvrtc, NVRTC)):
        command = [compiler, "-std=c++17", "-O1", "-shared", "-fPIC", "-fvisibility=hidden", f"-Wl,-soname,{library}"]
        command += ["-Wl,--default-symver"] if sources is NVRTC else []  # which PyTorch asks for
        command += [f"-I{header}" for header in headers]
        command += [*(str(SOURCES / name) for name in sources), "-o", str(folder / library), "-ldl", "-lpthread"]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            raise RuntimeError(f"the stand-in for CUDA could not be compiled:\n{result.stderr}")

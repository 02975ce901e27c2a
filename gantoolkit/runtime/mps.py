"""CUDA's Multi-Process Service: kernels of several processes run side by side on a device instead of taking turns."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["multi_process_service"]

_CONTROL = "nvidia-cuda-mps-control"
_PIPES, _LOGS = "CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY"
_TIMEOUT_S = 60
_TAKE_TURNS = "their kernels take turns on a device"
_SIDE_BY_SIDE = "their kernels run side by side (CUDA MPS)"


@contextmanager
def multi_process_service(enabled: bool = True) -> Iterator[str]:
    """Start the service for the child processes that are started within this context, if this machine has it.

    The service belongs to this context: it has a folder of its own, and ends with it. A service that the environment names is
    used as it is. Nothing is started if a process could not use CUDA with it.

    Returns:
        How kernels of several processes share a device, in words.
    """
    if not enabled:
        yield _TAKE_TURNS
        return
    if os.environ.get(_PIPES):
        yield _SIDE_BY_SIDE
        return
    if shutil.which(_CONTROL) is None:
        yield f"{_TAKE_TURNS}: {_CONTROL} is not installed"
        return
    with tempfile.TemporaryDirectory(prefix="gantoolkit-mps-", ignore_cleanup_errors=True) as folder:
        variables = {_PIPES: folder, _LOGS: folder}
        problem = _start(variables)
        if problem:
            yield f"{_TAKE_TURNS}: {problem}"
            return
        os.environ.update(variables)
        try:
            yield _SIDE_BY_SIDE
        finally:
            for name in variables:
                os.environ.pop(name, None)
            _quit(variables)


def _start(variables: dict[str, str]) -> str:
    """Start the service and try it in a process; returns the problem, if there is one."""
    attempt = [sys.executable, "-c", "import torch; torch.zeros(1, device='cuda').item()"]
    try:
        for command in ([_CONTROL, "-d"], attempt):
            _run(command, variables, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        _quit(variables)
        return f"CUDA MPS could not be used ({type(error).__name__})"
    return ""


def _quit(variables: dict[str, str]) -> None:
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        _run([_CONTROL], variables, text="quit\n")


def _run(command: list[str], variables: dict[str, str], *, text: str = "", check: bool = False) -> None:
    environment = {**os.environ, **variables}
    # Not into a pipe: the service keeps it open, and reading would not end.
    output = subprocess.DEVNULL
    subprocess.run(
        command, env=environment, input=text, text=True, stdout=output, stderr=output, timeout=_TIMEOUT_S, check=check
    )

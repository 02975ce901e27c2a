"""Kernels in Triton for what ATen does not do in channels_last: instance norm with all that follows it, reflection padding.

`can_fuse` is asked first; where it says no, the plain layers run. Triton is imported when a tensor first fits.
"""

import functools
import importlib.util
import os
import warnings

import torch
from torch import Tensor, nn

__all__ = ["can_fuse", "has_kernels"]

_SWITCH = "GANTOOLKIT_KERNELS"
_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
_LARGEST_IMAGE = 2**31  # elements: inside an image the kernels count in 32 bits
_CAPABILITY = (8, 0)  # what Triton supports


def has_kernels(device: torch.device) -> bool:
    """Whether the kernels run on `device`: CUDA, of a capability that Triton supports, and Triton works there.

    While torch.compile or torch.jit traces they stand back: the one fuses plain layers itself, the other has to see them.
    `GANTOOLKIT_KERNELS=0` in the environment switches them off. `TRITON_INTERPRET=1`, Triton's own switch for trying kernels
    without a GPU, lets the CPU in, slowly.
    """
    if torch.compiler.is_compiling() or os.environ.get(_SWITCH) == "0":
        return False
    if torch.jit.is_tracing():  # pyright: ignore[reportPrivateImportUsage] (torch documents it)
        return False
    return device.type in ("cuda", "cpu") and _works_on(device)


def can_fuse(features: Tensor, *, pad: int = 0) -> bool:
    """Whether the kernels take `features`, to be padded by `pad` pixels on each side, in place of the plain layers.

    They take (N, C, H, W) in channels_last, in float32, bfloat16, float16 or float64, with more than one pixel and with `pad`
    smaller than H and W, on a device that `has_kernels`.
    """
    if not has_kernels(features.device) or type(features) not in (Tensor, nn.Parameter):
        return False
    if features.ndim != 4 or features.dtype not in _DTYPES:
        return False
    images, channels, height, width = features.shape
    if images * channels == 0 or height * width <= 1 or pad >= min(height, width):
        return False
    if channels * (height + 2 * pad) * (width + 2 * pad) >= _LARGEST_IMAGE:
        return False
    return features.is_contiguous(memory_format=torch.channels_last)


@functools.cache
def _works_on(device: torch.device) -> bool:
    """Whether a kernel can be compiled for that device and started there, found out once by doing it."""
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if (device.type == "cpu" and not interpreted) or importlib.util.find_spec("triton") is None:
        return False
    if device.type == "cpu":
        return True
    if torch.cuda.get_device_capability(device) < _CAPABILITY:
        return False
    from gantoolkit.layers.kernels.triton_reflection_pad import fused_reflection_pad

    try:
        fused_reflection_pad(torch.zeros(1, 1, 2, 2, device=device), 1)
    except Exception as error:  # whatever Triton lacks, a C compiler for one, the plain layers do not
        reason = str(error).partition("\n")[0]
        warnings.warn(
            f"Triton does not work on {device} ({type(error).__name__}: {reason}), so the plain layers are used; "
            f"{_SWITCH}=0 in the environment chooses them without this warning",
            stacklevel=2,
        )
        return False
    return True

"""Triton kernels for channels_last operations that ATen lacks: fused instance norm and reflection padding.

Call `can_fuse` first; where it returns False, use the plain layers. Triton is imported on first use.
"""

import functools
import importlib.util
import os
import warnings

import torch
from torch import Tensor, nn

__all__ = ["can_fuse", "has_kernels", "is_traced"]

_SWITCH = "GANTOOLKIT_KERNELS"
_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
_MAX_IMAGE_ELEMENTS = 2**31  # the kernels index into an image with 32 bits
_MIN_CAPABILITY = (8, 0)  # what Triton supports


def has_kernels(device: torch.device) -> bool:
    """Whether the kernels run on `device`: a CUDA device of a supported compute capability with a working Triton.

    False while layers are traced. `GANTOOLKIT_KERNELS=0` in the environment disables the kernels. `TRITON_INTERPRET=1`,
    Triton's interpreter mode, enables them on a CPU, slowly.
    """
    if is_traced() or os.environ.get(_SWITCH) == "0":
        return False
    return device.type in ("cuda", "cpu") and _works_on(device)


def is_traced() -> bool:
    """Whether torch.compile, torch.export or torch.jit traces: the first fuses plain layers itself, the others record them."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage] (documented)


def can_fuse(features: Tensor, *, pad: int = 0) -> bool:
    """Whether the kernels support `features`, padded by `pad` pixels on each side.

    They support (N, C, H, W) in channels_last, in float32, bfloat16, float16 or float64, with more than one pixel and `pad`
    smaller than H and W, on a device that `has_kernels`.
    """
    if not has_kernels(features.device) or type(features) not in (Tensor, nn.Parameter):
        return False
    if features.ndim != 4 or features.dtype not in _DTYPES:
        return False
    images, channels, height, width = features.shape
    if images * channels == 0 or height * width <= 1 or pad >= min(height, width):
        return False
    if channels * (height + 2 * pad) * (width + 2 * pad) >= _MAX_IMAGE_ELEMENTS:
        return False
    return features.is_contiguous(memory_format=torch.channels_last)


@functools.cache
def _works_on(device: torch.device) -> bool:
    """Whether a kernel compiles and runs on `device`. Tested once, by running one."""
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if (device.type == "cpu" and not interpreted) or importlib.util.find_spec("triton") is None:
        return False
    if device.type == "cpu":
        return True
    if torch.cuda.get_device_capability(device) < _MIN_CAPABILITY:
        return False
    from gantoolkit.layers.kernels.triton_reflection_pad import fused_reflection_pad

    try:
        fused_reflection_pad(torch.zeros(1, 1, 2, 2, device=device), 1)
    except Exception as error:  # Triton may lack a C compiler, for example; the plain layers need none
        reason = str(error).partition("\n")[0]
        warnings.warn(
            f"Triton does not work on {device} ({type(error).__name__}: {reason}), so the plain layers are used; "
            f"set {_SWITCH}=0 in the environment to silence this warning",
            stacklevel=2,
        )
        return False
    return True

"""Bilinear resizing whose gradient is deterministic where deterministic algorithms are required."""

import functools

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["resize", "resizing_matrix"]


def resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize images (N, C, H, W) to `size` (height, width), bilinearly and with antialiasing.

    PyTorch has no deterministic gradient for this on CUDA. In deterministic mode, it is computed there as two matrix products.
    """
    if not (images.is_cuda and images.requires_grad and torch.are_deterministic_algorithms_enabled()):
        return functional.interpolate(images, size, mode="bilinear", antialias=True)
    rows, columns = (
        resizing_matrix(source, target, images.dtype, images.device)
        for source, target in zip(images.shape[-2:], size, strict=True)
    )
    return rows @ images @ columns.T


@functools.lru_cache(maxsize=32)
def resizing_matrix(source: int, target: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The matrix (target, source) that resizes a column of pixels: what resizing makes of the identity matrix."""
    with torch.inference_mode(False), torch.device("cpu"):
        identity = torch.eye(source, dtype=torch.promote_types(dtype, torch.float32))[None, None]
        weights = functional.interpolate(identity, (target, source), mode="bilinear", antialias=True)[0, 0]
        return weights.to(device, dtype)

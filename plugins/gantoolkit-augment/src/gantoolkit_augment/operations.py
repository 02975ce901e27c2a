"""Differentiable random augmentations, drawn per image from torch's global generator.

Images are (N, C, H, W) in [−1, 1] with any number of channels. If that is a multiple of three, each group of three is an RGB
image, and all groups change alike. Results may leave the range, since clipping would stop gradients.
"""

import math

import kornia.augmentation
import kornia.enhance
import kornia.geometry.transform
import torch
from einops import einsum, rearrange, reduce
from torch import Tensor


def uniform(images: Tensor, low: float, high: float) -> Tensor:
    """Draw one number per image, (N, 1, 1, 1)."""
    return low + (high - low) * torch.rand(len(images), 1, 1, 1, device=images.device, dtype=images.dtype)


def blend_colors(images: Tensor) -> Tensor:
    """Change brightness by up to ±½, saturation by a factor of 0 to 2, contrast by ½ to 1½ (Zhao et al. 2020, §3.2)."""
    brighter = images + uniform(images, -0.5, 0.5)
    saturation, contrast = uniform(images, 0, 2), uniform(images, 0.5, 1.5)
    saturated = kornia.enhance.add_weighted(brighter, saturation, _gray(brighter), 1 - saturation, 0.0)
    mean = reduce(saturated, "n c h w -> n 1 1 1", "mean").expand_as(saturated)
    return kornia.enhance.add_weighted(saturated, contrast, mean, 1 - contrast, 0.0)


def move(images: Tensor, share: float) -> Tensor:
    """Translate by up to `share` of the side, in whole pixels, and fill with gray (Zhao et al. 2020, §3.2)."""
    for axis in (3, 2):
        shift = uniform(images, -share, share) * images.shape[axis]
        images = _shift(images, shift.round().long(), axis)
    return images


def _shift(images: Tensor, shift: Tensor, axis: int) -> Tensor:
    """Translate each image by `shift` (N, 1, 1, 1) pixels along one axis; its gradient is deterministic on CUDA."""
    side = images.shape[axis]
    shape = [side if index == axis else 1 for index in range(4)]
    source = torch.arange(side, device=images.device).view(shape) - shift
    shifted = images.gather(axis, source.clamp(0, side - 1).expand_as(images))
    return shifted * ((source >= 0) & (source < side))


def cut_out(images: Tensor, share: float) -> Tensor:
    """Make a square of `share` of the side gray (Zhao et al. 2020, §3.2)."""
    erase = kornia.augmentation.RandomErasing(scale=(share**2, share**2), ratio=(1.0, 1.0), value=0.0, p=1.0)
    return erase(images)


def warp(images: Tensor, probability: Tensor) -> Tensor:
    """Flip, rotate, scale and translate, each with `probability`, in one resampling (Karras et al. 2020, appendix B)."""
    count, (height, width) = len(images), images.shape[-2:]

    def sometimes(value: Tensor, otherwise: float) -> Tensor:
        is_changed = torch.rand(count, device=images.device) < probability.to(images.device)
        return torch.where(is_changed, value.flatten(), torch.full_like(value.flatten(), otherwise))

    def normal(deviation: float) -> Tensor:
        return deviation * torch.randn(count, device=images.device, dtype=images.dtype)

    sign = 1 - 2 * torch.randint(2, (count,), device=images.device).to(images.dtype)
    flip = sometimes(sign, 1.0)
    scale = sometimes(torch.exp2(normal(0.2)), 1.0)
    stretch = sometimes(torch.exp2(normal(0.2)), 1.0)
    quarter_turns = sometimes(90.0 * torch.randint(4, (count,), device=images.device).to(images.dtype), 0.0)
    angle = sometimes(uniform(images, -180, 180), 0.0)
    shift = torch.stack([sometimes(normal(0.125) * side, 0.0) for side in (width, height)], dim=1)
    center = torch.tensor([(width - 1) / 2, (height - 1) / 2], device=images.device, dtype=images.dtype)
    matrix = kornia.geometry.transform.get_affine_matrix2d(
        shift,
        center.expand(count, 2),
        torch.stack([flip * scale * stretch, scale / stretch], dim=1),
        quarter_turns + angle,
    )
    return kornia.geometry.transform.warp_affine(images, matrix[:, :2], (height, width), padding_mode="reflection")


def mix_channels(images: Tensor, probability: Tensor) -> Tensor:
    """Change brightness, contrast and, for RGB, luma flip, hue and saturation, each with `probability` (Karras et al. 2020)."""
    count = len(images)

    def sometimes(value: Tensor, otherwise: float) -> Tensor:
        is_changed = torch.rand(count, 1, 1, 1, device=images.device) < probability.to(images.device)
        return torch.where(is_changed, value, torch.full_like(value, otherwise))

    def normal(deviation: float) -> Tensor:
        return deviation * torch.randn(count, 1, 1, 1, device=images.device, dtype=images.dtype)

    contrast = sometimes(torch.exp2(normal(0.5)), 1.0)
    images = contrast * (images + sometimes(normal(0.2), 0.0))
    if images.shape[1] % 3:
        return images
    luma_flip = sometimes(torch.randint(2, (count, 1, 1, 1), device=images.device).to(images.dtype), 0.0)
    hue = sometimes(uniform(images, -math.pi, math.pi), 0.0)
    saturation = sometimes(torch.exp2(normal(1.0)), 1.0)
    matrix = _color_matrix(*(value.view(count, 1, 1) for value in (luma_flip, hue, saturation)))
    groups = rearrange(images, "n (g c) h w -> n g c h w", c=3)
    mixed = einsum(matrix, groups, "n i j, n g j h w -> n g i h w")
    return rearrange(mixed, "n g c h w -> n (g c) h w")


def _color_matrix(luma_flip: Tensor, hue: Tensor, saturation: Tensor) -> Tensor:
    """The matrices (N, 3, 3) that flip along the gray axis, rotate around it, and scale the distance to it."""
    axis = torch.full((3, 1), 1 / math.sqrt(3), device=hue.device, dtype=hue.dtype)
    gray_projection, unit = axis @ axis.T, torch.eye(3, device=hue.device, dtype=hue.dtype)
    cross = torch.zeros(3, 3, device=hue.device, dtype=hue.dtype)
    cross[0, 1], cross[1, 2], cross[2, 0] = -axis[2, 0], -axis[0, 0], -axis[1, 0]
    cross = cross - cross.T
    flip_luma = unit - 2 * luma_flip * gray_projection
    rotate_hue = gray_projection + hue.cos() * (unit - gray_projection) + hue.sin() * cross
    scale_saturation = gray_projection + saturation * (unit - gray_projection)
    return scale_saturation @ rotate_hue @ flip_luma


def _gray(images: Tensor) -> Tensor:
    """Replace the channels of each pixel by their mean."""
    if images.shape[1] % 3:
        return images
    groups = rearrange(images, "n (g c) h w -> n g c h w", c=3)
    return rearrange(groups.mean(dim=2, keepdim=True).expand_as(groups), "n g c h w -> n (g c) h w")

"""Random changes of images that gradients pass through, drawn for each image from torch's global generator.

Images are (N, C, H, W) in [−1, 1], with any number of channels; where these are a multiple of three, each three are taken for
red, green and blue of one image, and all of them are changed alike. Results may leave the range: clipping would stop gradients.
"""

import math

import kornia.augmentation
import kornia.enhance
import kornia.geometry.transform
import torch
from einops import einsum, rearrange, reduce
from torch import Tensor


def uniform(images: Tensor, low: float, high: float) -> Tensor:
    """A number (N, 1, 1, 1) for each image."""
    return low + (high - low) * torch.rand(len(images), 1, 1, 1, device=images.device, dtype=images.dtype)


def blend_colors(images: Tensor) -> Tensor:
    """Brightness by up to ±½, saturation by 0 to 2, contrast by ½ to 1½ (Zhao et al. 2020, §3.2)."""
    brighter = images + uniform(images, -0.5, 0.5)
    saturation, contrast = uniform(images, 0, 2), uniform(images, 0.5, 1.5)
    saturated = kornia.enhance.add_weighted(brighter, saturation, _gray(brighter), 1 - saturation, 0.0)
    mean = reduce(saturated, "n c h w -> n 1 1 1", "mean").expand_as(saturated)
    return kornia.enhance.add_weighted(saturated, contrast, mean, 1 - contrast, 0.0)


def move(images: Tensor, share: float) -> Tensor:
    """Move by up to `share` of the side, by whole pixels; what is uncovered is gray (Zhao et al. 2020, §3.2)."""
    height, width = images.shape[-2:]
    shifts = torch.cat(
        [
            (uniform(images, -share, share) * width).round().flatten(1),
            (uniform(images, -share, share) * height).round().flatten(1),
        ],
        dim=1,
    )
    return kornia.geometry.transform.translate(images, shifts, mode="nearest")


def cut_out(images: Tensor, share: float) -> Tensor:
    """Make a square of `share` of the side gray (Zhao et al. 2020, §3.2)."""
    erase = kornia.augmentation.RandomErasing(scale=(share**2, share**2), ratio=(1.0, 1.0), value=0.0, p=1.0)
    return erase(images)


def warp(images: Tensor, probability: Tensor) -> Tensor:
    """Mirror, turn, stretch and move, each with `probability`, in one step (Karras et al. 2020, appendix B)."""
    count, (height, width) = len(images), images.shape[-2:]

    def sometimes(value: Tensor, otherwise: float) -> Tensor:
        chosen = torch.rand(count, device=images.device) < probability.to(images.device)
        return torch.where(chosen, value.flatten(), torch.full_like(value.flatten(), otherwise))

    def normal(deviation: float) -> Tensor:
        return deviation * torch.randn(count, device=images.device, dtype=images.dtype)

    sign = 1 - 2 * torch.randint(2, (count,), device=images.device).to(images.dtype)
    mirrored = sometimes(sign, 1.0)
    scale = sometimes(torch.exp2(normal(0.2)), 1.0)
    stretch = sometimes(torch.exp2(normal(0.2)), 1.0)
    quarter = sometimes(90.0 * torch.randint(4, (count,), device=images.device).to(images.dtype), 0.0)
    angle = sometimes(uniform(images, -180, 180), 0.0)
    shift = torch.stack([sometimes(normal(0.125) * side, 0.0) for side in (width, height)], dim=1)
    middle = torch.tensor([(width - 1) / 2, (height - 1) / 2], device=images.device, dtype=images.dtype)
    matrix = kornia.geometry.transform.get_affine_matrix2d(
        shift,
        middle.expand(count, 2),
        torch.stack([mirrored * scale * stretch, scale / stretch], dim=1),
        quarter + angle,
    )
    return kornia.geometry.transform.warp_affine(images, matrix[:, :2], (height, width), padding_mode="reflection")


def mix_channels(images: Tensor, probability: Tensor) -> Tensor:
    """Brightness, contrast, and for colors luma flip, hue and saturation, each with `probability` (Karras et al. 2020)."""
    count = len(images)

    def sometimes(value: Tensor, otherwise: float) -> Tensor:
        chosen = torch.rand(count, 1, 1, 1, device=images.device) < probability.to(images.device)
        return torch.where(chosen, value, torch.full_like(value, otherwise))

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
    """(N, 3, 3): mirror at the gray axis' plane, turn around that axis, stretch away from it."""
    axis = torch.full((3, 1), 1 / math.sqrt(3), device=hue.device, dtype=hue.dtype)
    along, unit = axis @ axis.T, torch.eye(3, device=hue.device, dtype=hue.dtype)
    cross = torch.zeros(3, 3, device=hue.device, dtype=hue.dtype)
    cross[0, 1], cross[1, 2], cross[2, 0] = -axis[2, 0], -axis[0, 0], -axis[1, 0]
    cross = cross - cross.T
    flipped = unit - 2 * luma_flip * along
    turned = along + hue.cos() * (unit - along) + hue.sin() * cross
    stretched = along + saturation * (unit - along)
    return stretched @ turned @ flipped


def _gray(images: Tensor) -> Tensor:
    """Each pixel's mean over the channels of its image, in all of them."""
    if images.shape[1] % 3:
        return images
    groups = rearrange(images, "n (g c) h w -> n g c h w", c=3)
    return rearrange(groups.mean(dim=2, keepdim=True).expand_as(groups), "n g c h w -> n (g c) h w")

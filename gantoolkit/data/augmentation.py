"""Resize, crop, flip (Zhu et al. 2017, appendix 7.1): what a training image goes through, from draws that are given."""

import random

from PIL import Image, ImageOps
from torch import Tensor

from gantoolkit.data.images import to_tensor
from gantoolkit.errors import DataError
from gantoolkit.settings import DataSettings

__all__ = ["augment", "prepare"]


def augment(image: Image.Image, settings: DataSettings, draws: random.Random) -> Tensor:
    """A random crop of an image, perhaps mirrored: (C, crop_size, crop_size) in [−1, 1].

    Raises:
        DataError: When the image is smaller than the crop.
    """
    image = _resize(image, settings, settings.load_size)
    left = draws.randint(0, image.width - settings.crop_size)
    top = draws.randint(0, image.height - settings.crop_size)
    crop = image.crop((left, top, left + settings.crop_size, top + settings.crop_size))
    return to_tensor(ImageOps.mirror(crop) if settings.flip and draws.random() < 0.5 else crop)


def prepare(image: Image.Image, settings: DataSettings, *, label_map: bool = False) -> Tensor:
    """The middle of an image as it is looked at while training: no draw, (C, crop_size, crop_size) in [−1, 1].

    Args:
        label_map: Resize without mixing neighbours, whose mean would be the colour of a third label.

    Raises:
        DataError: When the image is smaller than the crop.
    """
    resample = Image.Resampling.NEAREST if label_map else Image.Resampling.BICUBIC
    image = _resize(image, settings, settings.crop_size, resample)
    left, top = (image.width - settings.crop_size) // 2, (image.height - settings.crop_size) // 2
    return to_tensor(image.crop((left, top, left + settings.crop_size, top + settings.crop_size)))


def _resize(
    image: Image.Image, settings: DataSettings, side: int, resample: Image.Resampling = Image.Resampling.BICUBIC
) -> Image.Image:
    if settings.resize == "square":
        return image.resize((side, side), resample)
    if settings.resize == "shorter_side":
        scale = side / min(image.size)
        size = (max(side, round(image.width * scale)), max(side, round(image.height * scale)))
        return image.resize(size, resample)
    if min(image.size) < settings.crop_size:
        raise DataError(
            f"is {image.width}×{image.height}, smaller than data.crop_size {settings.crop_size}; "
            'set data.resize = "shorter_side"'
        )
    return image

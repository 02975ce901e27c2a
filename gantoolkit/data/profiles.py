"""Color profiles: the colors of a picture are converted to sRGB, which networks and other programs expect."""

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

from gantoolkit.data.notes import UNUSED_PROFILE, Note

__all__ = ["ProfileError", "convert_to_srgb", "note_unused_profile"]

_MODES = {("RGB ", "RGB"): "RGB", ("RGB ", "L"): "RGB", ("GRAY", "L"): "L", ("CMYK", "CMYK"): "CMYK"}
"""The mode in which a profile of a color space describes an image of a mode. Many programs save gray with an RGB profile."""
_MAX_DIFFERENCE = 2
"""In levels of 255. Programs store slightly different versions of the sRGB profile."""


class ProfileError(ValueError):
    """A profile that is damaged, or is not for the channels of its image."""


def convert_to_srgb(image: Image.Image, profile: bytes) -> Image.Image | None:
    """Convert an image of mode L, RGB or CMYK to mode RGB in sRGB; None if its profile is sRGB already.

    Raises:
        ProfileError: When the profile cannot be used.
    """
    transform = _find_transform(profile, image.mode)
    if isinstance(transform, str):
        raise ProfileError(transform)
    return None if transform is None else transform.apply(image.convert(transform.input_mode))


def note_unused_profile(profile: bytes | None, mode: str) -> tuple[Note, ...]:
    """The note about the profile of levels that are kept as they are; none if it is sRGB or cannot be used.

    Args:
        mode: L, RGB or CMYK.
    """
    return (
        (UNUSED_PROFILE,) if profile and isinstance(_find_transform(profile, mode), ImageCms.ImageCmsTransform) else ()
    )


@lru_cache(maxsize=32)
def _find_transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | str | None:
    """The transform to sRGB; None if it changes nothing, or why there is none. Most files of a folder have the same profile."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = source.profile.xcolor_space  # pyright: ignore[reportAttributeAccessIssue]
        input_mode = _MODES.get((space, mode))
        if input_mode is None:
            return f"a profile for {space.strip()} does not describe an image of mode {mode}"
        transform = ImageCms.buildTransform(
            source,
            ImageCms.createProfile("sRGB"),
            input_mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        return None if mode != "CMYK" and _is_identity(transform) else transform
    except Exception as error:  # the library raises several types for damaged profiles
        return str(error) or type(error).__name__


def _is_identity(transform: ImageCms.ImageCmsTransform) -> bool:
    grays = np.arange(256, dtype=np.uint8)
    samples = np.stack([grays] * 3, axis=-1)[None]
    if is_color := transform.input_mode == "RGB":
        levels = np.linspace(0, 255, 9).astype(np.uint8)
        cube = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(1, -1, 3)
        samples = np.concatenate([samples, cube], axis=1)
    converted = transform.apply(Image.fromarray(samples if is_color else samples[..., 0]))
    difference = np.asarray(converted).astype(int) - samples
    return bool(np.abs(difference).max() <= _MAX_DIFFERENCE)

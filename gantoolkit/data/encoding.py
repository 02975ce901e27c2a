"""Conversion between the values in a domain's image files (8 bits, 16 bits or any range) and floats in [−1, 1]."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from gantoolkit.recipes.settings import DataSettings, Nodata, Range, Resample

__all__ = ["PICTURE", "Encoding", "encoding_of"]

_WHITE = {"8-bit": 255, "16-bit": 65535}


@dataclass(frozen=True)
class Encoding:
    """How the files of a domain encode images.

    Args:
        channels: The number of channels.
        range: The values that become −1 and 1.
        clip: Whether values outside the range become its nearest end.
        nodata: The value of pixels without data.
        unit: The unit of the values.
        resample: How images are resized.
        domain: The domain, A or B, whose settings these are; empty if there is none. Messages name its settings.
    """

    channels: int = 3
    range: Range = "8-bit"
    clip: bool = False
    nodata: Nodata = None
    unit: str = ""
    resample: Resample = "bicubic"
    domain: str = field(default="", compare=False)

    @property
    def is_picture(self) -> bool:
        """Whether images are gray or RGB with 8 bits, which all image programs can read."""
        return self.range == "8-bit" and self.channels in (1, 3)

    @property
    def low(self) -> float:
        """The value that becomes −1."""
        return 0.0 if isinstance(self.range, str) else self.range[0]

    @property
    def high(self) -> float:
        """The value that becomes 1."""
        return float(_WHITE[self.range]) if isinstance(self.range, str) else self.range[1]

    @property
    def bits(self) -> Literal[8, 16] | None:
        """The bit depth of the values; None for a range of values."""
        return {"8-bit": 8, "16-bit": 16}.get(self.range) if isinstance(self.range, str) else None  # type: ignore[return-value]

    @property
    def value_unit(self) -> str:
        """The unit of differences of values: `levels of 255`, the domain's own unit, or the range if no unit is set."""
        if self.bits:
            return f"levels of {self.high:g}"
        return self.unit or f"values from {self.low:g} to {self.high:g}"

    def scale_difference(self, difference: float) -> float:
        """Convert a difference of floats in [−1, 1] to one of values, in `value_unit`."""
        return difference * ((self.high - self.low) / 2)

    @property
    def dtype(self) -> np.dtype:
        """The dtype of values in memory: uint8, uint16 or float32."""
        return np.dtype({8: np.uint8, 16: np.uint16, None: np.float32}[self.bits])

    @property
    def bytes_per_pixel(self) -> int:
        """The size of a pixel in memory."""
        return self.channels * self.dtype.itemsize

    def name_setting(self, name: str) -> str:
        """The full name of a setting of this domain, such as `data.range_A`."""
        return f"data.{name}_{self.domain}" if self.domain else f"data.{name}_A (or {name}_B)"

    def describe_settings(self, channels: int, dtype: np.dtype, bits: int | None = None) -> str:
        """The settings of a recipe that read files with a number of channels and a dtype. A range of values is kept.

        Args:
            bits: The bit depth of the values, if it is not that of the dtype.
        """
        if not self.bits:
            return f"{self.name_setting('channels')} = {channels}"
        bits = bits or 8 * dtype.itemsize
        levels = ("8-bit" if bits <= 8 else "16-bit") if dtype.kind == "u" and bits <= 16 else ""
        values = f'"{levels}"' if levels else "[low, high] (the values of black and white)"
        return f"{self.name_setting('channels')} = {channels} and {self.name_setting('range')} = {values}"

    def __str__(self) -> str:
        colors = {1: "gray", 3: "RGB"}.get(self.channels, f"{self.channels} channels") if self.bits else ""
        colors = colors or f"{self.channels} channel{'s' if self.channels > 1 else ''}"
        if self.bits:
            return f"{colors}, {self.range}"
        return f"{colors}, values from {self.low:g} to {self.high:g}{f' {self.unit}' if self.unit else ''}"

    def to_floats(self, values: np.ndarray) -> Tensor:
        """Convert file values (H, W, C) to a float tensor (C, H, W) in [−1, 1]."""
        # Transposing before the conversion to floats is three times as fast.
        ordered = torch.from_numpy(np.array(values.transpose(2, 0, 1), order="C"))
        return self.scale(ordered)

    def scale(self, values: Tensor) -> Tensor:
        """Convert file values of any shape to floats in [−1, 1]."""
        if self.bits:
            return values.float().div_(self.high / 2).sub_(1)
        half = (self.high - self.low) / 2
        return values.double().sub_(self.low + half).div_(half).float()

    def quantize(self, images: Tensor) -> Tensor:
        """Round floats of any shape in [−1, 1] to those of values that files can hold, clipped to the range, in float32."""
        if not self.bits:
            return images.float().clamp(-1, 1)
        half = self.high / 2
        return images.float().add(1).mul_(half).round_().clamp_(0, self.high).div_(half).sub_(1)

    def from_floats(self, image: Tensor) -> np.ndarray:
        """Convert a float tensor (C, H, W) in [−1, 1] to file values (H, W, C), clipped to the range; levels are rounded."""
        image = image.detach().cpu()
        if self.bits:
            levels = image.float().add(1).mul(self.high / 2).round().clamp(0, self.high)
            values = levels.to(torch.uint8 if self.bits == 8 else torch.int32)
        else:
            half = (self.high - self.low) / 2
            values = image.double().mul(half).add(self.low + half).clamp(self.low, self.high)
        return values.permute(1, 2, 0).numpy().astype(self.dtype, copy=False)


PICTURE = Encoding()
"""RGB with 8 bits."""


def encoding_of(settings: DataSettings, domain: str) -> Encoding:
    """The encoding of the files of domain A or B."""
    fields = ("channels", "range", "clip", "nodata", "unit", "resample")
    return Encoding(**{name: getattr(settings, f"{name}_{domain}") for name in fields}, domain=domain)

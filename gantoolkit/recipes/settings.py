"""The settings of a recipe that are not blocks: how images are read, and how long and at what intervals a run trains."""

import math
import struct
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from gantoolkit.registry.signature import Effect, Parameter, document_parameters

__all__ = ["INVALID_SETTINGS", "DataSettings", "Nodata", "Range", "Resample", "TrainingSettings", "Unit", "read_fields"]

INVALID_SETTINGS = "settings"
"""The type of pydantic's errors whose messages are complete sentences."""

Range = Literal["8-bit", "16-bit"] | tuple[float, float]
"""The values in image files that are mapped to −1 and 1: 0 and 255, 0 and 65535, or a pair of values."""


def _name_nan(value: Any) -> Any:
    return "nan" if isinstance(value, float) and math.isnan(value) else value


Nodata = Annotated[
    Annotated[float, Field(allow_inf_nan=False)] | Literal["nan"] | None,
    BeforeValidator(_name_nan, json_schema_input_type=float | Literal["nan"] | None),
]
"""The value of pixels without data; NaN becomes the string `nan`, because NaN is not equal to itself."""

Resample = Literal["bicubic", "nearest"]
"""How the images of a domain are resized."""

Unit = Annotated[str, Field(max_length=20, pattern=r"^[ -~°µ²³]*$")]
"""The unit of the values of a domain."""


class DataSettings(BaseModel):
    """Reading and augmentation; the defaults are CycleGAN's (Zhu et al. 2017, appendix 7.1).

    Args:
        channels_A: Channels of domain A. For 8-bit pictures, 3 reads every image as RGB and 1 as gray; all other files must
            have exactly this number.
        channels_B: Channels of domain B.
        range_A: The range of the values in the files of domain A: `8-bit` and `16-bit` for levels whose maximum is white; or
            two values, such as [0.0, 5.0], that are mapped to −1 and 1.
        range_B: The same for domain B.
        clip_A: Whether values outside the range become its nearest end. Otherwise, a file that contains some is unreadable. For
            ranges of two values.
        clip_B: The same for domain B.
        nodata_A: The value, or `nan`, of pixels without data, such as -9999.0. They train as the low end of the range; a
            translation has them where its image has them. For ranges of two values.
        nodata_B: The same for domain B.
        unit_A: The unit of the values, such as `HU` or `m`, with which scores are printed. For ranges of two values.
        unit_B: The same for domain B.
        resample_A: How images are resized: `bicubic`, or `nearest`, which mixes no values, for label maps.
        resample_B: The same for domain B.
        resize: `square` stretches each image to `load_size` × `load_size`; `shorter_side` keeps its aspect ratio and makes the
            shorter side `load_size`; `none` does not resize.
        load_size: Side in pixels before cropping.
        crop_size: Side in pixels of the random training crop.
        flip: Mirror each image horizontally with probability ½.
        max_bad_files: Files that may be unreadable, or change while a run trains: they are named and skipped. One more stops
            the run.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    channels_A: Annotated[int, Field(ge=1, le=4096)] = 3
    channels_B: Annotated[int, Field(ge=1, le=4096)] = 3
    range_A: Range = "8-bit"
    range_B: Range = "8-bit"
    clip_A: bool = False
    clip_B: bool = False
    nodata_A: Nodata = None
    nodata_B: Nodata = None
    unit_A: Annotated[Unit, Effect("none")] = ""
    unit_B: Annotated[Unit, Effect("none")] = ""
    resample_A: Resample = "bicubic"
    resample_B: Resample = "bicubic"
    resize: Literal["square", "shorter_side", "none"] = "square"
    load_size: Annotated[int, Field(ge=1)] = 286
    crop_size: Annotated[int, Field(ge=1)] = 256
    flip: bool = True
    max_bad_files: Annotated[int, Field(ge=0), Effect("none")] = 20

    @field_validator("range_A", "range_B", mode="plain")
    @classmethod
    def _is_range(cls, value: Any) -> Range:
        if value in ("8-bit", "16-bit"):
            return value
        pair = isinstance(value, list | tuple) and len(value) == 2
        if not pair or any(isinstance(end, bool) or not isinstance(end, int | float) for end in value):
            raise ValueError
        try:
            low, high = map(float, value)
            narrow = [struct.unpack("f", struct.pack("f", end))[0] for end in (low, high)]
        except OverflowError:
            raise ValueError from None
        if not narrow[0] < narrow[1] or not math.isfinite(narrow[1] - narrow[0]):
            raise PydanticCustomError(
                INVALID_SETTINGS,
                "{pair} is not a range; the first value is mapped to -1 and the second to 1: write the smaller one first, and "
                "two values that differ in float32",
                {"pair": [low, high]},
            )
        return low, high

    @model_validator(mode="after")
    def _crop_fits(self) -> "DataSettings":
        if self.resize != "none" and self.crop_size > self.load_size:
            raise PydanticCustomError(
                INVALID_SETTINGS,
                "crop_size {crop} is larger than load_size {load}; set data.load_size to {crop} or more",
                {"crop": self.crop_size, "load": self.load_size},
            )
        return self

    @model_validator(mode="after")
    def _values_have_a_range(self) -> "DataSettings":
        for domain in "AB":
            if isinstance(getattr(self, f"range_{domain}"), tuple):
                continue
            for name in (f"clip_{domain}", f"nodata_{domain}", f"unit_{domain}"):
                if getattr(self, name) != DataSettings.model_fields[name].default:
                    raise PydanticCustomError(
                        INVALID_SETTINGS,
                        "{name} is for values, and range_{domain} is {levels}; set data.range_{domain} to two values, such as "
                        "[0.0, 5.0], or omit data.{name}",
                        {"name": name, "domain": domain, "levels": getattr(self, f"range_{domain}")},
                    )
        return self


class TrainingSettings(BaseModel):
    """How long and at what intervals a run trains.

    Args:
        epochs: Passes over the larger domain.
        batch_size: Pairs of images per step.
        seed: The seed of all random numbers: weights, order, crops, pools, dropout.
        precision: The precision of the networks; images, losses, weights and optimizers are always float32. `tf32` and `fp16`
            are for CUDA, `bf16` is for CUDA and for CPUs that support it; `auto` chooses the fastest on the device where the
            run starts, and keeps it.
        compile: Compile networks with torch.compile: minutes at the start of every session for faster steps.
        capture: Replay the whole step as one CUDA graph: `auto` does so on CUDA if the blocks of the recipe allow it, `true`
            also warns if they do not.
        deterministic: Use deterministic algorithms only: slower on CUDA, and required there for exact resume.
        log_every: Steps per row of the log, which holds their means.
        sample_every: Steps between grids of sample images.
        samples: Rows of a grid.
        checkpoint_every: Steps between checkpoints.
        keep_checkpoints: The number of newest checkpoints to keep; an old one is removed once a newer one is verified.
        evaluate_every: Steps between evaluations with the recipe's `metric`; the best checkpoint is kept beside the newest. 0
            disables them.
        evaluate_images: Test images of each domain per evaluation.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    epochs: Annotated[int, Field(ge=1)] = 200
    batch_size: Annotated[int, Field(ge=1)] = 1
    seed: Annotated[int, Field(ge=0), Effect("chance")] = 0
    precision: Literal["fp32", "tf32", "bf16", "fp16", "auto"] = "fp32"
    compile: bool = False
    capture: Literal["auto"] | bool = "auto"
    deterministic: Annotated[bool, Effect("chance")] = False
    log_every: Annotated[int, Field(ge=1), Effect("none")] = 50
    sample_every: Annotated[int, Field(ge=1), Effect("none")] = 500
    samples: Annotated[int, Field(ge=1, le=16), Effect("none")] = 4
    checkpoint_every: Annotated[int, Field(ge=1), Effect("none")] = 1000
    keep_checkpoints: Annotated[int, Field(ge=2), Effect("none")] = 2
    evaluate_every: Annotated[int, Field(ge=0), Effect("none")] = 0
    evaluate_images: Annotated[int, Field(ge=1)] = 100


def read_fields(settings: type[BaseModel]) -> dict[str, Parameter]:
    """The fields of a settings class in the form in which `read_parameters` describes those of a block."""
    docs = document_parameters(settings)
    fields: dict[str, Parameter] = {}
    for name, field in settings.model_fields.items():
        annotation = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation  # type: ignore[valid-type]
        fields[name] = Parameter(name, annotation, field.default, docs.get(name, ""))
    return fields

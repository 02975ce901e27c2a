"""The plain settings of a recipe: how images are read, and how long and in what rhythm a run trains."""

import math
import struct
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from gantoolkit.registry.signature import Effect, Parameter, document_parameters

__all__ = ["DataSettings", "Range", "TrainingSettings", "read_fields"]

Range = Literal["8-bit", "16-bit"] | tuple[float, float]
"""Which values of image files become −1 and 1: 0 and 255, 0 and 65535, or two that are given."""


class DataSettings(BaseModel):
    """Reading and augmentation; the defaults are CycleGAN's (Zhu et al. 2017, appendix 7.1).

    Args:
        channels_A: Channels of domain A: of pictures of 8 bits 3 reads every image as RGB and 1 as gray; of all others files
            have to have so many.
        channels_B: Channels of domain B.
        range_A: What the values in the files of domain A mean: `8-bit` and `16-bit` for levels of which the highest is white;
            or two values, such as [0.0, 5.0], that become −1 and 1, for files that hold values of any kind.
        range_B: The same of domain B.
        resize: `square` stretches each image to `load_size` × `load_size`; `shorter_side` keeps its shape and makes the
            shorter side `load_size`; `none` takes the pixels as they are.
        load_size: Side in pixels before cropping.
        crop_size: Side in pixels of the random crop that the networks are trained on.
        flip: Mirror half of the images left to right.
        max_bad_files: Files that may turn out unreadable, or change while a run trains; they are named and skipped, and one
            more ends the run.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    channels_A: Annotated[int, Field(ge=1, le=4096)] = 3
    channels_B: Annotated[int, Field(ge=1, le=4096)] = 3
    range_A: Range = "8-bit"
    range_B: Range = "8-bit"
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
                "range",
                "{given} is no range; the first value becomes -1 and the second 1, so write the smaller one first, and two "
                "that float32 can tell apart",
                {"given": [low, high]},
            )
        return low, high

    @model_validator(mode="after")
    def _crop_fits(self) -> "DataSettings":
        if self.resize != "none" and self.crop_size > self.load_size:
            raise PydanticCustomError(
                "crop",
                "crop_size {crop} is larger than load_size {load}; set data.load_size to {crop} or more",
                {"crop": self.crop_size, "load": self.load_size},
            )
        return self


class TrainingSettings(BaseModel):
    """How long and in what rhythm a run trains.

    Args:
        epochs: Passes over the larger domain.
        batch_size: Pairs of images in a step.
        seed: Everything random follows from it: weights, order, crops, pools, dropout.
        precision: In what networks compute; images, losses, weights and optimizers are float32 always. `tf32` and `fp16` are
            for CUDA, `bf16` is for CUDA and for CPUs that have it; `auto` takes what is soonest done where the run starts,
            and keeps it.
        compile: Compile networks with torch.compile: minutes at the start of every session, for shorter steps.
        capture: Replay the whole step as one CUDA graph, where its blocks allow it.
        deterministic: Demand algorithms that give the same bits each time; slower on CUDA, needed there for exact resume.
        log_every: Steps between two rows of the log; a row holds means over them.
        sample_every: Steps between two grids of sample images.
        samples: Rows of such a grid.
        checkpoint_every: Steps between two checkpoints.
        keep_checkpoints: Newest checkpoints that are kept, two or more: one is removed when a newer one has been read back.
        evaluate_every: Steps between two measurements by the recipe's `metric`, with the best checkpoint kept beside the
            newest; 0 for none.
        evaluate_images: Test images, of each domain, that are measured then.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    epochs: Annotated[int, Field(ge=1)] = 200
    batch_size: Annotated[int, Field(ge=1)] = 1
    seed: Annotated[int, Field(ge=0), Effect("chance")] = 0
    precision: Literal["fp32", "tf32", "bf16", "fp16", "auto"] = "fp32"
    compile: bool = False
    capture: bool = False
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

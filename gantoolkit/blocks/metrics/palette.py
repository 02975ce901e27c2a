"""Color palettes: decode label maps that are drawn as images into class indices."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from gantoolkit.errors import DataError, RecipeError, did_you_mean
from gantoolkit.files.toml import read_toml

__all__ = ["IGNORED", "Palette", "find_palette", "list_palettes"]

IGNORED = -1
"""The class index of pixels that are not scored."""

_FOLDER = Path(__file__).parent / "palettes"
_CHUNK_PIXELS = 1 << 18

Level = Annotated[int, Field(ge=0, le=255)]
Color = tuple[Level, Level, Level]


class _Class(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    name: str
    color: Annotated[Color, Field(strict=False)]


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    classes: Annotated[list[_Class], Field(min_length=2)]
    ignored: Annotated[list[Annotated[Color, Field(strict=False)]], Field(default_factory=list)]


@dataclass(frozen=True)
class Palette:
    """Classes and their colors, in the order of their indices.

    Args:
        name: The palette's name.
        classes: Names of the scored classes.
        colors: Their colors, RGB from 0 to 255.
        ignored: Colors of pixels that are not scored.
    """

    name: str
    classes: tuple[str, ...]
    colors: tuple[Color, ...]
    ignored: tuple[Color, ...] = ()

    def __len__(self) -> int:
        return len(self.classes)

    def decode(self, images: Tensor, *, ignore: bool) -> Tensor:
        """Assign each pixel to the nearest color in RGB: classes (N, H, W) from images (N, 1 or 3, H, W) in [−1, 1].

        Args:
            ignore: Whether the ignored colors are candidates too; pixels nearest to one of them become `IGNORED`. Use True for
                ground truth and False for the output of a generator, where every pixel must get a class.
        """
        colors = torch.tensor(self.colors + (self.ignored if ignore else ()), dtype=torch.float32)
        levels = (images.detach().float().clamp(-1, 1) + 1) * 127.5
        pixels = levels.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).reshape(-1, 3)
        colors = colors.to(pixels)
        # In chunks: the distances of all pixels to all colors take twenty times the memory of the image.
        nearest = torch.cat([torch.cdist(chunk, colors).argmin(dim=1) for chunk in pixels.split(_CHUNK_PIXELS)])
        nearest = nearest.masked_fill(nearest >= len(self), IGNORED)
        return nearest.view(len(images), *images.shape[-2:])

    def encode(self, classes: Tensor) -> Tensor:
        """Draw classes (N, H, W) in their colors: (N, 3, H, W) in [−1, 1]. `IGNORED` pixels get the first ignored color."""
        colors = torch.tensor([*self.colors, *self.ignored[:1]], dtype=torch.float32, device=classes.device)
        indices = torch.where(classes == IGNORED, len(colors) - 1, classes)
        return (colors[indices] / 127.5 - 1).permute(0, 3, 1, 2)


def list_palettes() -> list[str]:
    """The names of the built-in palettes."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def find_palette(source: str) -> Palette:
    """Load a built-in palette by name, or a palette from a TOML file.

    The file has a table `[[classes]]` for each class, with `name` and `color = [red, green, blue]` from 0 to 255. `ignored`
    lists the colors of pixels that are not scored.

    Raises:
        DataError: If the name is unknown, or the file is not a palette.
    """
    if source.endswith(".toml"):
        return _read(Path(source))
    known = list_palettes()
    if source not in known:
        hint = did_you_mean(source, known)
        raise DataError(f"unknown palette '{source}'.{hint} Use one of {', '.join(known)}, or the path of a .toml file")
    return _read(_FOLDER / f"{source}.toml")


def _read(path: Path) -> Palette:
    try:
        file = _File.model_validate(read_toml(path))
    except RecipeError as error:
        raise DataError(str(error)) from error
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(str(part) for part in problem["loc"])
        raise DataError(
            f"{path}: invalid '{field}' ({problem['msg'][0].lower()}{problem['msg'][1:]}); a palette has [[classes]] with "
            "name and color = [red, green, blue], each from 0 to 255"
        ) from None
    names = tuple(entry.name for entry in file.classes)
    colors = tuple(entry.color for entry in file.classes)
    for field, values in (("name", names), ("color", colors + tuple(file.ignored))):
        duplicate = next((value for value in values if values.count(value) > 1), None)
        if duplicate is not None:
            raise DataError(f"{path}: duplicate {field} {duplicate!r}; every {field} must be unique")
    return Palette(path.stem, names, colors, tuple(file.ignored))

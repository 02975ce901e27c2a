"""Colors of labels: a map of labels that is drawn as an image, read back as classes."""

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
"""The class of a pixel whose color says that it is not to be scored."""

_FOLDER = Path(__file__).parent / "palettes"
_PIXELS = 1 << 18

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
    """Classes with their colors, in the order of their indices.

    Args:
        name: What it is called.
        classes: Names of the classes that are scored.
        colors: Their colors, RGB from 0 to 255.
        ignored: Colors of what is not scored.
    """

    name: str
    classes: tuple[str, ...]
    colors: tuple[Color, ...]
    ignored: tuple[Color, ...] = ()

    def __len__(self) -> int:
        return len(self.classes)

    def decode(self, images: Tensor, *, ignore: bool) -> Tensor:
        """The class of each pixel by the nearest color in RGB: (N, H, W) from images (N, 1 or 3, H, W) in [−1, 1].

        Args:
            ignore: Whether a pixel may come nearest to a color that is not scored; it becomes `IGNORED`. For the truth that is
                right; what a generator drew has to be one of the classes.
        """
        colors = torch.tensor(self.colors + (self.ignored if ignore else ()), dtype=torch.float32)
        levels = (images.detach().float().clamp(-1, 1) + 1) * 127.5
        pixels = levels.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).reshape(-1, 3)
        wanted = colors.to(pixels)
        # In parts: the distances of all pixels to all colors take twenty times the memory of the image.
        nearest = torch.cat([torch.cdist(part, wanted).argmin(dim=1) for part in pixels.split(_PIXELS)])
        nearest[nearest >= len(self)] = IGNORED
        return nearest.view(len(images), *images.shape[-2:])

    def encode(self, classes: Tensor) -> Tensor:
        """Draw classes (N, H, W) in their colors: (N, 3, H, W) in [−1, 1]; what is ignored gets the first ignored color."""
        colors = torch.tensor([*self.colors, *self.ignored[:1]], dtype=torch.float32, device=classes.device)
        places = torch.where(classes == IGNORED, len(colors) - 1, classes)
        return (colors[places] / 127.5 - 1).permute(0, 3, 1, 2)


def list_palettes() -> list[str]:
    """The palettes that are known by name."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def find_palette(source: str) -> Palette:
    """The palette of that name, or of a TOML file.

    Such a file has a table `[[classes]]` for each class, with `name` and `color = [red, green, blue]` from 0 to 255; `ignored`
    lists colors that are not scored.

    Raises:
        DataError: When there is none, or the file holds none.
    """
    if source.endswith(".toml"):
        return _read(Path(source))
    known = list_palettes()
    if source not in known:
        hint = did_you_mean(source, known)
        raise DataError(f"palettes: no '{source}'.{hint} Known: {', '.join(known)}, or the path of a .toml file")
    return _read(_FOLDER / f"{source}.toml")


def _read(path: Path) -> Palette:
    try:
        file = _File.model_validate(read_toml(path))
    except RecipeError as error:
        raise DataError(str(error)) from error
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise DataError(
            f"{path}: '{where}' is wrong ({problem['msg'][0].lower()}{problem['msg'][1:]}); a palette has [[classes]] with "
            "name and color = [red, green, blue], each from 0 to 255"
        ) from None
    names = tuple(each.name for each in file.classes)
    colors = tuple(each.color for each in file.classes)
    for what, values in (("name", names), ("color", colors + tuple(file.ignored))):
        twice = next((value for value in values if values.count(value) > 1), None)
        if twice is not None:
            raise DataError(f"{path}: two classes have the {what} {twice!r}; each needs its own")
    return Palette(path.stem, names, colors, tuple(file.ignored))

"""Which generator a command means: a run's folder and a direction, or a generator's file."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from gantoolkit.errors import DataError

if TYPE_CHECKING:
    from gantoolkit.inference import Tile, Translator
    from gantoolkit.precision import Precision

__all__ = ["load_model"]


def load_model(
    model: Path,
    direction: str | None,
    *,
    device: str,
    precision: "Precision | Literal['auto']" = "fp32",
    compile: bool = False,
    tile: "Tile" = "auto",
) -> "Translator":
    """The generator in a run's folder or a file.

    Args:
        direction: Needed for a run's folder that has both.
        device, precision, compile, tile: As `gantoolkit.inference.Translator.load`.

    Raises:
        DataError: When the direction is missing, or another than that of the file.
        CheckpointError: When it cannot be read.
    """
    from gantoolkit.inference import Translator
    from gantoolkit.run import Run

    if model.is_dir():
        run = Run.open(model)
        wanted = direction or _only_direction(model)
        return run.translator(wanted, device=device, precision=precision, compile=compile, tile=tile)
    translator = Translator.load(model, device=device, precision=precision, compile=compile, tile=tile)
    if direction not in (None, translator.direction):
        raise DataError(f"{model}: translates {translator.direction}, not {direction}")
    return translator


def _only_direction(model: Path) -> str:
    from gantoolkit.training import RunFolder

    found = sorted(path.stem for path in RunFolder(model).generators.glob("*.safetensors"))
    if len(found) == 1:
        return found[0]
    raise DataError(f"{model}: say --direction {' or --direction '.join(found) or 'A2B, once it has been trained'}")

"""The generators that are served, by the names under which they are asked for."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gantoolkit.errors import DataError
from gantoolkit.inference import Translator
from gantoolkit.run import Run

__all__ = ["Model", "open_models"]

_LONGEST = 100


@dataclass(frozen=True)
class Model:
    """What one name stands for.

    Args:
        name: As it is in addresses.
        translators: By direction; with two of them a translation has a way back.
    """

    name: str
    translators: dict[str, Translator]


def open_models(given: Sequence[str | Path], *, device: str | None = None) -> dict[str, Model]:
    """Load each run's folder and each generator's file.

    Args:
        given: Paths, each of which may say its name: `horses=runs/cyclegan`. Without that it is the folder's, or the file's
            without suffix. Files that are given one name are the directions of one model.
        device: As `gantoolkit.runtime.device.select_device`.

    Raises:
        DataError: When two have one name, a name cannot be part of an address, or a generator's images are no pictures.
        CheckpointError: When there is no run or no generator there.
    """
    models: dict[str, Model] = {}
    for each in given:
        name, path = _split(str(each))
        model = models.setdefault(_check(name, path), Model(name, {}))
        for translator in _load(path, device):
            source, target = translator.generator.source, translator.generator.target
            if not (source.is_picture and target.is_picture):
                raise DataError(
                    f"{path}: translates {source} to {target}; a page shows pictures, gray or RGB of 8 bits"
                )
            if translator.direction in model.translators:
                raise DataError(
                    f"{path}: there is a model '{name}' already that translates {translator.direction}; "
                    f"give it another name: NAME={path}"
                )
            model.translators[translator.direction] = translator
    return models


def _split(given: str) -> tuple[str, Path]:
    """The name, and the path."""
    name, equals, path = given.partition("=")
    if equals and not Path(given).exists():
        return name, Path(path)
    path = Path(given)
    whole = path.resolve()
    return (whole.stem if path.is_file() else whole.name), path


def _check(name: str, path: Path) -> str:
    if not name or len(name) > _LONGEST or not name.isprintable() or "/" in name or name.strip(".") == "":
        raise DataError(f"'{name}': cannot be the name of a model; take letters and digits: NAME={path}")
    return name


def _load(path: Path, device: str | None) -> Iterator[Translator]:
    if not path.is_dir():
        yield Translator.load(path, device=device)
        return
    run = Run.open(path)
    for direction in run.directions():
        yield run.translator(direction, device=device)

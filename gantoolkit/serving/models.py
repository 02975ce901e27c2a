"""The served models, by name."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gantoolkit.errors import DataError
from gantoolkit.files.paths import user_path
from gantoolkit.inference import Translator
from gantoolkit.run import Run

__all__ = ["Model", "open_models"]

_LONGEST_NAME = 100


@dataclass(frozen=True)
class Model:
    """A named model.

    Args:
        name: The name in URLs.
        translators: The translator of each direction.
    """

    name: str
    translators: dict[str, Translator]


def open_models(sources: Sequence[str | Path], *, device: str | None = None) -> dict[str, Model]:
    """Load models from run folders and generator files.

    Args:
        sources: Paths, optionally with a name: `horses=runs/cyclegan`. By default, the name is that of the folder, or that of
            the file without suffix. Files of the same name form one model with several directions.
        device: As in `gantoolkit.runtime.device.select_device`.

    Raises:
        DataError: When a name is used twice for one direction, a name is not valid in a URL, or a generator does not translate
            8-bit gray or RGB images.
        CheckpointError: When a path contains no run or generator.
    """
    models: dict[str, Model] = {}
    for argument in sources:
        name, path = _split(str(argument))
        model = models.setdefault(_check(name, path), Model(name, {}))
        for translator in _load(path, device):
            source, target = translator.generator.source, translator.generator.target
            if not (source.is_picture and target.is_picture):
                raise DataError(
                    f"{path}: translates {source} to {target}; only 8-bit gray and RGB images can be served"
                )
            if translator.direction in model.translators:
                raise DataError(
                    f"{path}: there is already a model '{name}' that translates {translator.direction}; "
                    f"choose another name: NAME={path}"
                )
            model.translators[translator.direction] = translator
    return models


def _split(argument: str) -> tuple[str, Path]:
    """Split an argument into name and path."""
    name, equals, path = argument.partition("=")
    if equals and not user_path(argument).exists():
        return name, user_path(path)
    path = user_path(argument)
    full_path = path.resolve()
    return (full_path.stem if path.is_file() else full_path.name), path


def _check(name: str, path: Path) -> str:
    if not name or len(name) > _LONGEST_NAME or not name.isprintable() or "/" in name or name.strip(".") == "":
        raise DataError(f"'{name}': is not a valid model name; use letters and digits: NAME={path}")
    return name


def _load(path: Path, device: str | None) -> Iterator[Translator]:
    if not path.is_dir():
        yield Translator.load(path, device=device)
        return
    run = Run.open(path)
    for direction in run.directions():
        yield run.translator(direction, device=device)

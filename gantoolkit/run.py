"""A run: the folder in which a recipe was trained, or is being trained, and what can be done with it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from gantoolkit.cost.out_of_memory import explain_out_of_memory
from gantoolkit.data import CacheMode, open_dataset, open_test_images
from gantoolkit.data.images import ImageFile
from gantoolkit.errors import CheckpointError, DataError
from gantoolkit.export import Exported, Format, export_generator
from gantoolkit.inference import Tile, Translator
from gantoolkit.plugins import Direction
from gantoolkit.recipes import Recipe
from gantoolkit.recipes.building import pairing_of
from gantoolkit.runs import RunFolder
from gantoolkit.runtime.device import select_device
from gantoolkit.runtime.precision import Precision
from gantoolkit.training import Callback, RunEnded, get_world_size, is_main_process, train

__all__ = ["Run", "open_translator"]


class Run:
    """One run's folder. Make one with `Run.start` or `Run.open`.

    Args:
        folder: Where its files lie.
        recipe: Its resolved recipe.
        data: Folder of the data set it learns from; None for what its `run.json` says.
    """

    def __init__(self, folder: RunFolder, recipe: Recipe, data: Path | None) -> None:
        self.folder = folder
        self.recipe = recipe
        self._data = data

    @classmethod
    def start(cls, recipe: Recipe, data: str | Path, out: str | Path) -> "Run":
        """Check a recipe and make a folder for it; a run of the same recipe that is there already is taken up.

        Raises:
            RecipeError, PluginError: When the recipe cannot work.
            DataError: When the data set cannot be used.
            CheckpointError: When the folder holds a run of another recipe, or cannot be written.
        """
        folder, checked = RunFolder(out), recipe.check()
        open_dataset(data, pairing=pairing_of(checked))
        for images in Path(data).glob("t[re]*"):  # train and test, A and B
            if folder.path.resolve().is_relative_to(images.resolve()):
                raise CheckpointError(
                    f"{folder.path}: lies in {images}, among whose images its samples would be; choose another --out"
                )
        if folder.exists:
            folder.check_resumable(checked)
        if is_main_process():  # of several processes the first
            folder.create(checked, Path(data))
        return cls(folder, checked, Path(data))

    @classmethod
    def open(cls, path: str | Path, *, data: str | Path | None = None) -> "Run":
        """Take up the run in a folder.

        Args:
            data: Where its data set lies now, if that has moved.

        Raises:
            CheckpointError: When there is none.
        """
        folder = RunFolder(path)
        recipe = folder.read_recipe().check()
        if data is None and folder.metadata_file.exists():  # what was pulled has none, and translates without
            data = folder.read_metadata()["data"]
        return cls(folder, recipe, None if data is None else Path(data))

    @property
    def path(self) -> Path:
        return self.folder.path

    @property
    def data(self) -> Path:
        """Folder of the data set.

        Raises:
            CheckpointError: When it is not known.
        """
        return Path(self.folder.read_metadata()["data"]) if self._data is None else self._data

    @property
    def report(self) -> Path:
        """The page with settings, curves and samples."""
        return self.folder.report

    def train(
        self,
        *,
        device: str | None = None,
        workers: int = 0,
        cache: CacheMode = "auto",
        stop_at: int | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> RunEnded:
        """Train to the end, or to step `stop_at`, from wherever the run stands.

        Args:
            device: As `gantoolkit.runtime.device.select_device`.
            workers: Processes that load images; they change nothing but the speed.
            cache: Where decoded images are kept, as `gantoolkit.data.CacheMode` says; nor does this.
            stop_at: Step after which to save and stop.
            callbacks: Called with every event of `gantoolkit.training.events`.

        Raises:
            GantoolkitError: As `gantoolkit.training.train`, and when there is not enough memory.
        """
        where = select_device(device)
        rest = f"{self.path} is as it was at its last checkpoint, and other settings want another --out"
        with explain_out_of_memory(self.recipe, where, world_size=get_world_size(), rest=rest):
            return train(
                self.folder,
                self.recipe,
                self.data,
                device=where,
                workers=workers,
                cache=cache,
                stop_at=stop_at,
                callbacks=callbacks,
            )

    def directions(self) -> list[str]:
        """The directions whose generators have been saved.

        Raises:
            CheckpointError: When there is none.
        """
        found = sorted(path.stem for path in self.folder.generators.glob("*.safetensors"))
        if not found:
            raise CheckpointError(f"{self.path}: nothing has been saved yet; train first")
        return found

    def translator(
        self,
        direction: str,
        *,
        best: bool = False,
        device: str | None = None,
        precision: Precision | Literal["auto"] = "fp32",
        compile: bool = False,
        tile: Tile = "auto",
    ) -> Translator:
        """The generator of one direction, as of the newest checkpoint.

        Args:
            direction: `A2B` or `B2A`.
            best: As it was when the recipe's metric was best, if the run measures while it trains.
            device, precision, compile, tile: As `Translator.load`.

        Raises:
            CheckpointError: When there is no such direction, or nothing was saved yet.
        """
        path = self.find_generator(direction, best=best)
        return Translator.load(path, device=device, precision=precision, compile=compile, tile=tile)

    def find_generator(self, direction: str, *, best: bool = False) -> Path:
        """The file of one direction's generator; arguments and errors as `translator`."""
        found = self.directions()
        if direction not in found:
            raise CheckpointError(f"{self.path}: no generator for direction '{direction}'; there is {', '.join(found)}")
        folder = self.folder.best_generators if best else self.folder.generators
        if best and not folder.is_dir():
            raise CheckpointError(
                f"{self.path}: has no best generators; they are kept where training.evaluate_every is set before it starts"
            )
        return folder / f"{direction}.safetensors"

    def export(
        self, direction: str, path: str | Path, format: Format, *, images: Sequence[str | Path] = ()
    ) -> Exported:
        """Write the generator of one direction for other programs, verified; see `gantoolkit.export.export_generator`.

        Args:
            direction: `A2B` or `B2A`.
            path: The file to write.
            format: `onnx`, `torch` or `safetensors`.
            images: What it is tried on; by default images of the run's data set, or else pictures made for it.

        Raises:
            CheckpointError: As `translator`.
            ExportError, DataError: As `export_generator`.
        """
        generator = self.translator(direction, device="cpu").generator
        sources = [Path(image) for image in images] or self.example_images(direction)
        return export_generator(generator, path, format, images=sources)

    def example_images(self, direction: str) -> Sequence[ImageFile]:
        """What the data set has of the domain that a direction translates, for tests if it can be; none if it has moved."""
        try:
            dataset = open_test_images(self.data) or open_dataset(self.data)
        except (DataError, CheckpointError):
            return ()
        return dataset.files(Direction(direction).source)


def open_translator(model: str | Path, direction: str | None = None, **options: Any) -> Translator:
    """The generator in a run's folder or in a file of its own; arguments and errors as `gantoolkit.load`."""
    path = Path(model)
    if path.is_dir():
        run = Run.open(path)
        found = sorted(file.stem for file in run.folder.generators.glob("*.safetensors"))
        if direction is None and len(found) != 1:
            wanted = " or --direction ".join(found) or "A2B, once it has been trained"
            raise DataError(f"{path}: say --direction {wanted}")
        return run.translator(direction or found[0], **options)
    translator = Translator.load(path, **options)
    if direction not in (None, translator.direction):
        raise DataError(f"{path}: translates {translator.direction}, not {direction}")
    return translator

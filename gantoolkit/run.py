"""A run: the folder in which a recipe is trained, and what can be done with it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from gantoolkit.cost.out_of_memory import explain_out_of_memory
from gantoolkit.data import CacheMode, open_dataset, open_test_images
from gantoolkit.data.folders import list_data_folders
from gantoolkit.data.images import ImageFile
from gantoolkit.errors import CheckpointError, DataError
from gantoolkit.export import ExportResult, Format, export_generator
from gantoolkit.files.paths import user_path
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
    """A training run. Create one with `Run.start` or `Run.open`.

    Args:
        folder: The run's folder.
        recipe: Its resolved recipe.
        data: Folder of its data set; None for the one in its `run.json`.
    """

    def __init__(self, folder: RunFolder, recipe: Recipe, data: Path | None) -> None:
        self.folder = folder
        self.recipe = recipe
        self._data = data

    @classmethod
    def start(cls, recipe: Recipe, data: str | Path, out: str | Path) -> "Run":
        """Check a recipe and create a folder for it; a run of the same recipe in that folder is resumed.

        Raises:
            RecipeError, PluginError: When the recipe cannot work.
            DataError: When the data set cannot be used.
            CheckpointError: When the folder holds a run of another recipe, or cannot be written.
        """
        data, folder, checked = user_path(data), RunFolder(out), recipe.check()
        open_dataset(data, pairing=pairing_of(checked))
        for images in list_data_folders(data):
            if folder.path.resolve().is_relative_to(images.resolve()):
                raise CheckpointError(
                    f"{folder.path}: is in {images}, where its samples would become part of the data set; choose another --out"
                )
        if folder.exists:
            folder.check_resumable(checked)
        if is_main_process():
            folder.create(checked, data)
        return cls(folder, checked, data)

    @classmethod
    def open(cls, path: str | Path, *, data: str | Path | None = None) -> "Run":
        """Open the run in a folder.

        Args:
            data: The folder of its data set, if it was moved.

        Raises:
            CheckpointError: When the folder contains no run.
        """
        folder = RunFolder(path)
        recipe = folder.read_recipe().check()
        if data is None and folder.metadata_file.exists():  # a pulled run has none
            data = folder.read_metadata()["data"]
        return cls(folder, recipe, None if data is None else user_path(data))

    @property
    def path(self) -> Path:
        return self.folder.path

    @property
    def data(self) -> Path:
        """Folder of the data set.

        Raises:
            CheckpointError: When it is unknown.
        """
        return Path(self.folder.read_metadata()["data"]) if self._data is None else self._data

    @property
    def report(self) -> Path:
        """The report with settings, curves and samples."""
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
        """Train to the end, or to step `stop_at`, from the last checkpoint.

        Args:
            device: As for `gantoolkit.runtime.device.select_device`.
            workers: Loader processes; they affect speed only.
            cache: Where decoded images are cached, see `gantoolkit.data.CacheMode`; it affects speed only.
            stop_at: The step after which to save and stop.
            callbacks: Called with every event of `gantoolkit.training.events`.

        Raises:
            GantoolkitError: As for `gantoolkit.training.train`, and when there is not enough memory.
        """
        target = select_device(device)
        rest = f"{self.path} is at its last checkpoint, and other settings need another --out"
        with explain_out_of_memory(self.recipe, target, world_size=get_world_size(), rest=rest):
            return train(
                self.folder,
                self.recipe,
                self.data,
                device=target,
                workers=workers,
                cache=cache,
                stop_at=stop_at,
                callbacks=callbacks,
            )

    def directions(self) -> list[str]:
        """The directions of the saved generators.

        Raises:
            CheckpointError: When there are none.
        """
        directions = sorted(path.stem for path in self.folder.generators.glob("*.safetensors"))
        if not directions:
            raise CheckpointError(f"{self.path}: nothing was saved yet; train first")
        return directions

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
        """The generator of one direction at the newest checkpoint.

        Args:
            direction: `A2B` or `B2A`.
            best: The generator at the best value of the recipe's metric, if the run evaluates it.
            device, precision, compile, tile: As for `Translator.load`.

        Raises:
            CheckpointError: When there is no such direction, or nothing was saved yet.
        """
        path = self.find_generator(direction, best=best)
        return Translator.load(path, device=device, precision=precision, compile=compile, tile=tile)

    def find_generator(self, direction: str, *, best: bool = False) -> Path:
        """The generator file of one direction; arguments and errors as for `translator`."""
        directions = self.directions()
        if direction not in directions:
            known = ", ".join(directions)
            raise CheckpointError(f"{self.path}: no generator for direction '{direction}'; there is {known}")
        folder = self.folder.best_generators if best else self.folder.generators
        if best and not folder.is_dir():
            raise CheckpointError(
                f"{self.path}: has no best generators; they are saved if training.evaluate_every is set when the run starts"
            )
        return folder / f"{direction}.safetensors"

    def export(
        self, direction: str, path: str | Path, format: Format, *, images: Sequence[str | Path] = ()
    ) -> ExportResult:
        """Export the generator of one direction and verify the file; see `gantoolkit.export.export_generator`.

        Args:
            direction: `A2B` or `B2A`.
            path: The file to write.
            format: `onnx`, `torch` or `safetensors`.
            images: Images to verify it on; by default images of the run's data set, or else generated ones.

        Raises:
            CheckpointError: As for `translator`.
            ExportError, DataError: As for `export_generator`.
        """
        generator = self.translator(direction, device="cpu").generator
        sources = [user_path(image) for image in images] or self.example_images(direction)
        return export_generator(generator, path, format, images=sources)

    def example_images(self, direction: str) -> Sequence[ImageFile]:
        """Images of the source domain of a direction, test images if there are any; none if the data set was moved."""
        try:
            dataset = open_test_images(self.data) or open_dataset(self.data)
        except (DataError, CheckpointError):
            return ()
        return dataset.files(Direction(direction).source)


def open_translator(model: str | Path, direction: str | None = None, **options: Any) -> Translator:
    """The generator in a run's folder or in a generator file; arguments and errors as for `gantoolkit.load`."""
    path = user_path(model)
    if path.is_dir():
        run = Run.open(path)
        directions = sorted(file.stem for file in run.folder.generators.glob("*.safetensors"))
        if direction is None and len(directions) != 1:
            choices = " or --direction ".join(directions) or "A2B, once it is trained"
            raise DataError(f"{path}: pass --direction {choices}")
        return run.translator(direction or directions[0], **options)
    translator = Translator.load(path, **options)
    if direction not in (None, translator.direction):
        raise DataError(f"{path}: translates {translator.direction}, not {direction}")
    return translator

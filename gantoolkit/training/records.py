"""Everything that a session writes beside checkpoints: the log, grids of samples, evaluations, the report."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gantoolkit.data import Dataset, open_test_images, write_image
from gantoolkit.plugins import System
from gantoolkit.recipes import Recipe
from gantoolkit.runs.folder import RunFolder
from gantoolkit.runs.health import examine, examine_flatness
from gantoolkit.runs.log import EVALUATION, Log, read_log, unit_name
from gantoolkit.runs.progress import Progress, describe_notes
from gantoolkit.runs.report import write_report
from gantoolkit.training.samples import draw_grid, make_samples, read_samples
from gantoolkit.training.validation import Validation

__all__ = ["Records"]


class Records:
    """Writes the records of a run; only the main process has one.

    Its `notes` are sentences about how the folders of the data set are read; those of `passed_over` say what is not used.

    Args:
        folder: The run's folder.
        recipe: A resolved recipe.
        system: The system that is trained.
        data: Folder of the data set, whose test images are drawn and measured.
        dataset: The training images, which are drawn if there are no test images.
        device: The device of the networks.
        step: The step from which the run continues.

    Raises:
        DataError: When the images to draw or to measure cannot be read.
        CheckpointError: When the log cannot be written.
    """

    def __init__(
        self,
        folder: RunFolder,
        recipe: Recipe,
        system: System,
        data: Path,
        dataset: Dataset,
        device: torch.device,
        step: int,
    ) -> None:
        self.folder, self.recipe, self.system = folder, recipe, system
        tests = open_test_images(data, dataset.pairing)
        opened = [dataset, tests] if tests else [dataset]
        self.notes = tuple(dict.fromkeys(note for images in opened for note in images.notes))
        self.passed_over = tuple(dict.fromkeys(note for images in opened for note in images.passed_over))
        samples = read_samples(tests or dataset, recipe.data, recipe.training.samples)
        self._samples = {domain: images.to(device) for domain, images in samples.items()}
        self._last_samples: dict[str, Tensor] = {}
        self._validation = Validation(recipe, system, data, device) if recipe.training.evaluate_every else None
        if self._validation is not None:
            measured = self._validation.images.file_notes
            self.notes += measured.sentences()
            self.passed_over += measured.sentences(passed_over_only=True)
        self._log = Log(folder.log, folder.table, folder.tensorboard, step=step)

    def draw_samples(self, step: int) -> Path:
        """Write a grid of the fixed samples and their translations."""
        path = self.folder.samples / f"step-{step:08d}.png"
        self._last_samples = make_samples(self.system, self._samples)
        grid = draw_grid(self._last_samples)
        write_image(grid, path)
        self._log.write_image("samples", torch.from_numpy(np.array(grid)), step)
        return path

    def write_row(self, row: Mapping[str, Any]) -> None:
        """Append a row to the log."""
        self._log.write(row)

    def write_table(self) -> None:
        """Update the table of the log."""
        self._log.write_table()

    def evaluate(self, step: int) -> float | None:
        """Log the recipe's metric on test images; the score that decides which step is the best, or None without a metric."""
        if self._validation is None:
            return None
        measurement = self._validation.measure()
        values = {f"{EVALUATION}/{name}": value for name, value in measurement.values.items()}
        units = {unit_name(f"{EVALUATION}/{name}"): unit for name, unit in measurement.units.items()}
        self._log.write({"step": step, **values, **units})
        return measurement.score

    def write_report(self, progress: Progress, steps: int, *, graph: str = "") -> None:
        """Update the report.

        Args:
            steps: The length of the whole run.
            graph: Whether steps are replayed as a CUDA graph, in words; empty where there is no CUDA.
        """
        counts = {"skipped steps": progress.skipped_steps, "unreadable files": len(progress.bad_files)}
        if progress.best_step is not None:
            counts["best step"] = progress.best_step
        images = 2 * self.recipe.training.batch_size * progress.step
        findings = examine(self._last_samples or make_samples(self.system, self._samples), read_log(self.folder.log))
        findings.append(examine_flatness(progress.flat_images, images))
        write_report(
            self.folder,
            self.recipe,
            step=progress.step,
            steps=steps,
            seconds=progress.seconds,
            arithmetic={
                "precision": progress.precision,
                "3×3 convolutions": progress.convolution,
                **({"CUDA graph": graph} if graph else {}),
            },
            counts=counts,
            findings=findings,
            bad_files=progress.bad_files,
            notes=(*self.notes, *describe_notes(progress.notes)[0]),
        )

    def close(self) -> None:
        """Close the log."""
        self._log.close()

"""What a run leaves beside its checkpoints: the log, pictures of samples, figures on test images, the report."""

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
from gantoolkit.runs.log import EVALUATION, Log, read_log
from gantoolkit.runs.progress import Progress
from gantoolkit.runs.report import write_report
from gantoolkit.training.samples import draw_grid, make_samples, read_samples
from gantoolkit.training.validation import Validation

__all__ = ["Records"]


class Records:
    """Writes it; of several processes that share a run one does.

    Args:
        folder: The run's.
        recipe: Resolved.
        system: What is looked at.
        data: Folder of the data set, whose test images are shown and measured.
        dataset: The training images; they are shown where there are none for tests.
        device: Where the networks are.
        step: Where the run stands.

    Raises:
        DataError: When what is to be shown or measured cannot be read.
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
        samples = read_samples(open_test_images(data, dataset.pairing) or dataset, recipe.data, recipe.training.samples)
        self._samples = {domain: images.to(device) for domain, images in samples.items()}
        self._shown: dict[str, Tensor] = {}
        self._validation = Validation(recipe, system, data, device) if recipe.training.evaluate_every else None
        self._log = Log(folder.log, folder.table, folder.tensorboard, step=step)

    def draw_samples(self, step: int) -> Path:
        """Write a grid of what the networks make of the fixed samples."""
        path = self.folder.samples / f"step-{step:08d}.png"
        self._shown = make_samples(self.system, self._samples)
        grid = draw_grid(self._shown)
        write_image(grid, path)
        self._log.write_image("samples", torch.from_numpy(np.array(grid)), step)
        return path

    def write_row(self, row: Mapping[str, Any]) -> None:
        """Append a row to the log."""
        self._log.write(row)

    def write_table(self) -> None:
        """Bring the log's table up to date."""
        self._log.write_table()

    def measure(self, step: int) -> float | None:
        """Log the recipe's metric on test images; what decides which step is the best: more is better. None if it has none."""
        if self._validation is None:
            return None
        figures = self._validation.measure()
        self._log.write({"step": step, **{f"{EVALUATION}/{name}": value for name, value in figures.items()}})
        return self._validation.judge(figures)

    def write_report(self, progress: Progress, steps: int) -> None:
        """Bring the run's page up to date; `steps` are those of the whole run."""
        counts = {"skipped steps": progress.skipped_steps, "unreadable files": len(progress.bad_files)}
        if progress.best_step is not None:
            counts["best step"] = progress.best_step
        seen = 2 * self.recipe.training.batch_size * progress.step
        findings = examine(self._shown or make_samples(self.system, self._samples), read_log(self.folder.log))
        findings.append(examine_flatness(progress.flat_images, seen))
        write_report(
            self.folder,
            self.recipe,
            step=progress.step,
            steps=steps,
            seconds=progress.seconds,
            counts=counts,
            findings=findings,
            bad_files=progress.bad_files,
        )

    def close(self) -> None:
        """Finish what is open."""
        self._log.close()

"""The state of a run: what a checkpoint holds, and how a run continues from it."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict

import torch
from torch import Tensor

from gantoolkit.data.notes import Note
from gantoolkit.errors import CheckpointError, DataError
from gantoolkit.plugins import ObservingScheduler
from gantoolkit.runs import Checkpoint, RunFolder
from gantoolkit.runs.health import count_flat
from gantoolkit.runs.log import RunningMeans
from gantoolkit.runs.progress import NotedFiles, Progress
from gantoolkit.runtime.arithmetic import Arithmetic
from gantoolkit.runtime.device import is_out_of_memory
from gantoolkit.training.agreement import gather_state, own_state, pools_of
from gantoolkit.training.distributed import ProcessGroup
from gantoolkit.training.trainer import Trainer

__all__ = ["RunState"]


class RunState:
    """The tensors of a trainer, the progress, and the running means of the losses.

    Args:
        trainer: The trainer, with empty image pools.
        process_group: The processes that share the run.
        arithmetic: The arithmetic of the trainer's networks.
        dataset: Identifies the data set, as `describe_dataset` does.
        steps: Steps of the whole run.
    """

    def __init__(
        self, trainer: Trainer, process_group: ProcessGroup, arithmetic: Arithmetic, dataset: str, steps: int
    ) -> None:
        self.trainer, self.process_group = trainer, process_group
        self.progress = Progress(
            **asdict(arithmetic), steps=steps, world_size=process_group.world_size, dataset=dataset
        )
        self.since_row, self.since_epoch = RunningMeans(), RunningMeans()
        self._empty_pools = pools_of(trainer)
        self._noted: dict[str, set[str]] = {}
        self._flat: int | Tensor = 0  # not yet in the progress: reading it waits for the device

    def add_losses(self, losses: Mapping[str, Tensor]) -> None:
        """Add the losses of a step to the means since the last row of the log and since the start of the epoch."""
        self.since_row.add(losses)
        self.since_epoch.add(losses)

    def add_flat_images(self, images: Mapping[str, Tensor]) -> None:
        """Count the flat images of a batch, without waiting for the device."""
        self._flat = self._flat + count_flat(images)

    def update_progress(self) -> Progress:
        """The progress, with the flat images that all processes have counted; a collective call."""
        counts = self.process_group.all_gather_object(int(self._flat))
        self.progress.flat_images += sum(count or 0 for count in counts)
        self._flat = 0
        return self.progress

    def note_bad_files(self, bad_files: Mapping[str, str], *, allowed: int) -> None:
        """Count unreadable files.

        Raises:
            DataError: When there are more than allowed.
        """
        bad_files = {**self.progress.bad_files, **bad_files}
        if len(bad_files) > allowed:
            path, reason = next(reversed(bad_files.items()))
            raise DataError(
                f"{len(bad_files)} files cannot be read, more than data.max_bad_files = {allowed}; the last: {path} {reason}"
            )
        self.progress.bad_files = bad_files

    def note_files(self, notes: Mapping[str, Sequence[Note]]) -> None:
        """Count the files with each kind of note."""
        for path, notes_of_file in notes.items():
            for note in notes_of_file:
                files = self._noted.setdefault(note.text, set())
                files.add(path)
                earlier = self.progress.notes.get(note.text)
                count = max(len(files), earlier.count if earlier else 0)
                first = earlier.first if earlier else path
                self.progress.notes[note.text] = NotedFiles(first=first, count=count, passed_over=note.passed_over)

    def find_non_finite(self) -> str:
        """A sentence that names a non-finite weight or optimizer moment; empty if all are finite. A collective call."""
        state = self.trainer.state_dict().items()
        tensors = {name: tensor for name, tensor in state if name.startswith(("network/", "optimizer/"))}
        flags = zip(tensors, _are_finite(tensors.values()), strict=True)
        own = next((name for name, is_finite in flags if not is_finite), None)
        # Weights are equal in all processes unless something failed in one, and what follows is collective.
        name = next((name for name in self.process_group.all_gather_object(own) if name), None)
        return f"{name} was not finite" if name else ""

    def to_checkpoint(self) -> Checkpoint:
        """Everything that the run needs to continue; a collective call."""
        scheduler = self.trainer.scheduler
        progress = {
            **self.update_progress().model_dump(),
            "since_row": self.since_row.state(),
            "since_epoch": self.since_epoch.state(),
            "scheduler": scheduler.state_dict() if isinstance(scheduler, ObservingScheduler) else {},
        }
        return Checkpoint(gather_state(self.trainer, self.process_group), progress)

    def restore(self, checkpoint: Checkpoint, folder: RunFolder) -> None:
        """Continue from a checkpoint of a run's folder.

        Raises:
            CheckpointError: When it does not fit its recipe, or the run was started on other images.
        """
        saved = dict(checkpoint.progress)
        before, world_size = saved.get("world_size", 1), self.process_group.world_size
        if before != world_size and self.process_group.is_main_process:
            warnings.warn(
                f"{folder.path}: was trained by {before} processes and continues with {world_size}: each process has its own "
                "image pools and random numbers, so the result differs from that of the same number of processes",
                stacklevel=2,
            )
        try:
            self.trainer.load_state_dict(own_state(checkpoint.tensors, self._empty_pools, self.process_group))
        except (RuntimeError, KeyError, ValueError, TypeError, AttributeError, IndexError) as error:
            if is_out_of_memory(error):
                raise
            raise CheckpointError(f"{folder.checkpoints}: the checkpoint does not fit its recipe ({error})") from error
        self.since_row = RunningMeans.restore(saved.pop("since_row"))
        self.since_epoch = RunningMeans.restore(saved.pop("since_epoch"))
        scheduler = saved.pop("scheduler")
        if isinstance(self.trainer.scheduler, ObservingScheduler):
            self.trainer.scheduler.load_state_dict(scheduler)
        dataset = self.progress.dataset
        self.progress, self._flat = Progress(**{**saved, "world_size": world_size}), 0
        if self.progress.dataset != dataset:
            raise CheckpointError(
                f"{folder.path}: was started on other images ({self.progress.dataset}) than there are now ({dataset}; counts, "
                "and a digest of the names); use the data set that it was started on"
            )


def _are_finite(tensors: Iterable[Tensor]) -> list[bool]:
    """Whether all values of each tensor are finite; waits for the device once."""
    device = next((tensor.device for tensor in tensors if tensor.is_cuda), torch.device("cpu"))
    flags = [torch.isfinite(tensor).all().to(device, non_blocking=True) for tensor in tensors]
    return torch.stack(flags).tolist() if flags else []

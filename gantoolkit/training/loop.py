"""The loop of a run: batches, steps, and what is written between them; any system, any recipe."""

import math
import time
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from gantoolkit.data import CacheMode, LoadedBatch, TrainingBatches, open_dataset
from gantoolkit.errors import CheckpointError, DataError, TrainingError
from gantoolkit.plugins import ObservingScheduler
from gantoolkit.recipes import Recipe
from gantoolkit.runs.folder import Checkpoint, RunFolder
from gantoolkit.runs.generator_files import save_generators
from gantoolkit.runs.health import count_flat
from gantoolkit.runs.log import RunningMeans
from gantoolkit.runs.progress import Progress
from gantoolkit.runtime.device import is_out_of_memory
from gantoolkit.runtime.precision import Precision, arithmetic
from gantoolkit.runtime.randomness import isolated_random_state, seed_everything
from gantoolkit.runtime.seeds import derive_seed
from gantoolkit.training.agreement import (
    check_dataset,
    check_recipe,
    check_settings,
    describe_dataset,
    find_checkpoint,
    gather_state,
    load_together,
    own_state,
    pools_of,
)
from gantoolkit.training.building import build_trainer, settle_precision
from gantoolkit.training.capture import CapturedStep, GraphRecorder
from gantoolkit.training.distributed import ProcessGroup, is_main_process, join_process_group
from gantoolkit.training.events import Callback, CheckpointSaved, Event, RunEnded, SamplesDrawn, StepDone
from gantoolkit.training.interrupts import Interrupts
from gantoolkit.training.records import Records
from gantoolkit.training.trainer import StepResult

__all__ = ["MAX_BAD_STEPS", "train"]

MAX_BAD_STEPS = 10
"""Steps in a row whose numbers are not finite before the run goes back to its checkpoint, and the next time gives up."""


_AHEAD = 2
"""Steps that CUDA may be behind before the host looks at what became of them; nothing that is not finite reaches a weight."""


@dataclass(frozen=True)
class _Taken:
    """A step that has been begun, and may not be done yet."""

    step: int
    result: StepResult
    bad_files: dict[str, str]


def train(
    folder: RunFolder,
    recipe: Recipe,
    data: Path,
    *,
    device: torch.device,
    workers: int = 0,
    cache: CacheMode = "auto",
    stop_at: int | None = None,
    callbacks: Sequence[Callback] = (),
) -> RunEnded:
    """Train until the recipe's last epoch, or continue from the newest checkpoint in the folder.

    In each of the processes that a launcher has started, together with the others: the first of them reads and writes the
    folder, and tells its callbacks.

    Args:
        folder: The run's folder, with its recipe in it.
        recipe: The same recipe, resolved.
        data: Folder of the data set.
        device: Where the networks are.
        workers: Processes that load images; the result does not depend on it.
        cache: Where decoded images are kept; the result does not depend on it either.
        stop_at: Step after which to save and stop, as if interrupted there.
        callbacks: Told of every event.

    Raises:
        DataError: When the data cannot be used, or too many files turn out unreadable.
        CheckpointError: When something cannot be written, or the checkpoints belong to another recipe.
        TrainingError: When the numbers stay non-finite, or another process has been lost.
    """
    with (
        folder.lock() if is_main_process() else nullcontext(),
        isolated_random_state(device, deterministic=recipe.training.deterministic),
        Interrupts() as interrupts,
        join_process_group(device, interrupts) as process_group,
    ):
        session = _Session(
            folder,
            recipe,
            data,
            process_group,
            device=device,
            workers=workers,
            cache=cache,
            stop_at=stop_at,
            callbacks=callbacks,
        )
        try:
            with arithmetic(session.precision, try_algorithms=not recipe.training.deterministic):
                return session.run(interrupts)
        finally:
            if session.records is not None:
                session.records.close()


class _Session:
    """One stretch of a run, from its start or its newest checkpoint to its end or an interruption."""

    def __init__(
        self,
        folder: RunFolder,
        recipe: Recipe,
        data: Path,
        process_group: ProcessGroup,
        *,
        device: torch.device,
        workers: int,
        cache: CacheMode,
        stop_at: int | None,
        callbacks: Sequence[Callback],
    ) -> None:
        self.stop_at = stop_at
        self.folder, self.recipe, self.settings = folder, recipe, recipe.training
        self.device, self.callbacks, self.process_group = device, callbacks, process_group
        check_settings(recipe, stop_at, process_group)
        checkpoint = find_checkpoint(folder, recipe, process_group)
        # What `auto` came to when the run began stays so, also where it would come to something else now.
        self.precision: Precision = (
            checkpoint.progress["precision"]
            if checkpoint
            else process_group.broadcast_object(settle_precision(recipe, device))
        )
        self.trainer = build_trainer(recipe, device, self.precision, process_group)
        self.step = self.trainer.step
        if self.settings.capture and device.type == "cuda":
            self.step = CapturedStep(self.trainer, GraphRecorder())
        self.system, self.scheduler = self.trainer.system, self.trainer.scheduler
        self.empty_pools = pools_of(self.trainer)
        check_recipe(recipe, self.system, process_group)
        dataset = open_dataset(data, pairing=self.system.pairing)
        check_dataset(dataset, process_group)
        self.batches = TrainingBatches(
            dataset,
            recipe.data,
            batch_size=self.settings.batch_size,
            seed=self.settings.seed,
            workers=workers,
            cache=cache,
            device=device,
            rank=process_group.rank,
            world_size=process_group.world_size,
        )
        self.steps = self.settings.epochs * self.batches.steps_per_epoch
        self.progress = Progress(
            precision=self.precision, world_size=process_group.world_size, dataset=describe_dataset(dataset)
        )
        self.since_row, self.since_epoch = RunningMeans(), RunningMeans()
        self.flat: int | torch.Tensor = 0  # of what has not been added to the progress: reading it waits for the device
        self.taken: deque[_Taken] = deque()
        self.ahead = _AHEAD if device.type == "cuda" else 0
        self.bad_in_a_row = 0
        if checkpoint is not None:
            self.restore(checkpoint)
        self.records: Records | None = None
        if process_group.is_main_process:
            self.records = Records(folder, recipe, self.system, data, dataset, device, self.progress.step)

    def run(self, interrupts: Interrupts) -> RunEnded:
        """Train to where it is to stop or to the end, save, and report."""
        stop = self.steps if self.stop_at is None else min(self.stop_at, self.steps)
        if self.progress.step == 0:
            self.draw_samples()
        rolled_back = False
        while problem := self.advance(stop, interrupts):
            self.roll_back(problem, again=rolled_back)
            rolled_back = True
        self.save()
        reason: Literal["finished", "stopped", "SIGINT", "SIGTERM"] = "stopped"
        if self.progress.step == self.steps:
            reason = "finished"
            self.draw_samples()
        elif interrupts.received is not None:
            reason = "SIGTERM" if interrupts.received.name == "SIGTERM" else "SIGINT"
        self.write_report()
        end = RunEnded(self.progress.step, reason, self.folder.report)
        self.tell(end)
        self.process_group.barrier()  # a launcher that sees one leave ends the others, which may not have saved yet
        return end

    def advance(self, stop: int, interrupts: Interrupts) -> str:
        """Take steps until `stop` or an interruption; what is wrong, where they cannot go on from where they are."""
        progress, settings, per_epoch = self.progress, self.settings, self.batches.steps_per_epoch
        self.taken.clear()
        self.bad_in_a_row = 0
        began = time.perf_counter() - progress.seconds
        for batch in self.load(stop, interrupts):
            epoch, place = divmod(progress.step, per_epoch)
            if batch.share:  # else another process counts it
                self.flat = self.flat + count_flat(batch.images)
            self.trainer.begin_epoch(epoch)
            seed_everything(derive_seed(settings.seed, "step", progress.step, rank=self.process_group.rank))
            images = {domain: image.to(self.device, non_blocking=True) for domain, image in batch.images.items()}
            result = self.step(images, progress.step, batch.share)
            progress.step += 1
            self.taken.append(_Taken(progress.step, result, batch.bad_files))
            is_row, ends_epoch = progress.step % settings.log_every == 0, place + 1 == per_epoch
            is_looked_at = is_row or ends_epoch or self.is_pause(stop)
            if problem := self.settle(0 if is_looked_at else self.ahead) or (
                self.is_pause(stop) and self.find_spoiled()
            ):
                return problem
            progress.seconds = time.perf_counter() - began
            if ends_epoch:
                self.trainer.end_epoch(self.since_epoch.compute())
                self.since_epoch = RunningMeans()
            if is_row:
                self.write_row(epoch)
            # Samples first: measuring may save, and a run that is killed after that does not come to this step again.
            if progress.step % settings.sample_every == 0 and progress.step < self.steps:
                self.draw_samples()
            if not self.bad_in_a_row and self.is_measured():
                self.measure()
            # In a row of bad steps the checkpoint before them stays the newest: that is where to go back to.
            if progress.step % settings.checkpoint_every == 0 and progress.step < stop and not self.bad_in_a_row:
                self.save()
                self.write_report()
        return self.settle(0) or self.find_spoiled()

    def load(self, stop: int, interrupts: Interrupts) -> Iterator[LoadedBatch]:
        """The batches from here to `stop`; where no more can be had, what has been learned is saved first.

        Raises:
            DataError: When there are no images, or too many files cannot be read.
        """
        try:
            batches = self.batches.iterate(self.progress.step, stop)
            for batch in load_together(batches, interrupts, self.process_group):
                self.note_bad_files(batch.bad_files)
                yield batch
        except DataError:
            if self.progress.step and not (self.settle(0) or self.bad_in_a_row or self.find_spoiled()):
                self.save()
                self.write_report()
            raise

    def is_pause(self, stop: int) -> bool:
        """Whether something is made of the networks after this step."""
        step, settings = self.progress.step, self.settings
        return (
            step == stop
            or step % settings.sample_every == 0
            or step % settings.checkpoint_every == 0
            or self.is_measured()
        )

    def settle(self, ahead: int) -> str:
        """Look at what the steps came to, but for the last `ahead`; what is wrong when too many in a row were not finite."""
        while len(self.taken) > ahead:
            done = self.taken.popleft()
            skipped = done.result.skipped
            if skipped is None:
                self.bad_in_a_row = 0
                self.since_row.add(done.result.losses)
                self.since_epoch.add(done.result.losses)
            else:
                self.bad_in_a_row += 1
                self.progress.skipped_steps += 1
                if self.bad_in_a_row == MAX_BAD_STEPS:
                    return f"losses or gradients were not finite in {MAX_BAD_STEPS} steps in a row"
            self.tell(StepDone(done.step, self.steps, done.result.losses, skipped, done.bad_files))
        return ""

    def find_spoiled(self) -> str:
        """Which weight, or moment of an optimizer, is not finite; nothing if all are. Such are never saved, nor measured."""
        spoiled = (
            name
            for name, tensor in self.trainer.state_dict().items()
            if name.startswith(("network/", "optimizer/")) and not torch.isfinite(tensor).all()
        )
        # Processes hold the same weights, if nothing has gone wrong in one; what they do next they have to do together.
        found = next((name for name in self.process_group.all_gather_object(next(spoiled, None)) if name), None)
        return f"{found} was not finite" if found else ""

    def roll_back(self, problem: str, *, again: bool) -> None:
        """Return to the newest checkpoint.

        Raises:
            TrainingError: When that has happened before, or there is none.
        """
        at = self.progress.step
        checkpoint = None if again else find_checkpoint(self.folder, self.recipe, self.process_group)
        if checkpoint is not None:
            self.restore(checkpoint)
        if again or self.progress.step == at:
            raise TrainingError(
                f"step {at}: {problem}{', also after going back to the last checkpoint' if again else ''}; nothing of these "
                "steps was kept. Lower optimizer.lr, or look at the data that these steps saw"
            )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue from a checkpoint."""
        kept = dict(checkpoint.progress)
        before = kept.get("world_size", 1)
        if before != self.process_group.world_size and self.process_group.is_main_process:
            warnings.warn(
                f"{self.folder.path}: was trained by {before} processes and goes on with {self.process_group.world_size}: each has an "
                "image pool and random draws of its own, so the result is another than with as many as before",
                stacklevel=2,
            )
        try:
            self.trainer.load_state_dict(own_state(checkpoint.tensors, self.empty_pools, self.process_group))
        except (RuntimeError, KeyError, ValueError, TypeError, AttributeError, IndexError) as error:
            if is_out_of_memory(error):
                raise
            raise CheckpointError(
                f"{self.folder.checkpoints}: the checkpoint does not fit its recipe ({error})"
            ) from error
        self.since_row, self.since_epoch = (
            RunningMeans.restore(kept.pop("since_row")),
            RunningMeans.restore(kept.pop("since_epoch")),
        )
        scheduler = kept.pop("scheduler")
        if isinstance(self.scheduler, ObservingScheduler):
            self.scheduler.load_state_dict(scheduler)
        dataset = self.progress.dataset
        self.progress, self.flat = Progress(**{**kept, "world_size": self.process_group.world_size}), 0
        if self.progress.dataset != dataset:
            raise CheckpointError(
                f"{self.folder.path}: was started with other images ({self.progress.dataset}) than there are now ({dataset}; "
                "counts, and a digest of the names); give the data that it was started with"
            )

    def save(self) -> None:
        """Write a checkpoint and each generator's own file."""
        self.count_flat_images()
        tensors = gather_state(self.trainer, self.process_group)
        if self.records is None:
            return
        observed = self.scheduler.state_dict() if isinstance(self.scheduler, ObservingScheduler) else {}
        means = {"since_row": self.since_row.state(), "since_epoch": self.since_epoch.state()}
        progress = {**self.progress.model_dump(), **means, "scheduler": observed}
        path = self.folder.save_checkpoint(Checkpoint(tensors, progress), self.recipe)
        save_generators(self.folder.generators, self.system, self.recipe, self.progress.step)
        self.records.write_table()
        self.tell(CheckpointSaved(self.progress.step, path))

    def is_measured(self) -> bool:
        """Whether the run is measured after this step: now and then, and at the end."""
        every = self.settings.evaluate_every
        return bool(every) and (self.progress.step % every == 0 or self.progress.step == self.steps)

    def measure(self) -> None:
        """Log the recipe's metric; where it was never better, keep this checkpoint and these generators."""
        progress = self.progress
        figure = self.process_group.broadcast_object(self.records.measure(progress.step) if self.records else None)
        if not math.isnan(figure) and (progress.best_score is None or figure > progress.best_score):
            progress.best_step, progress.best_score = progress.step, figure
            # Generators first: a run that is killed in between comes to this step again.
            if self.process_group.is_main_process:
                save_generators(self.folder.best_generators, self.system, self.recipe, progress.step)
            self.save()

    def draw_samples(self) -> None:
        """Write a grid of what the networks make of the fixed samples."""
        if self.records is not None:
            path = self.records.draw_samples(self.progress.step)
            self.tell(SamplesDrawn(self.progress.step, path))

    def write_row(self, epoch: int) -> None:
        """Append the means since the last row to the log."""
        rates = {f"rate/{name}": rate for name, rate in self.trainer.rates.items()}
        place = {"step": self.progress.step, "epoch": epoch, "seconds": round(self.progress.seconds, 3)}
        if self.records is not None:
            self.records.write_row({**place, **self.since_row.compute(), **rates})
        self.since_row = RunningMeans()

    def count_flat_images(self) -> None:
        """Bring the progress up to date, in all processes."""
        self.progress.flat_images += sum(count or 0 for count in self.process_group.all_gather_object(int(self.flat)))
        self.flat = 0

    def write_report(self) -> None:
        """Bring the run's page up to date."""
        self.count_flat_images()
        if self.records is not None:
            self.records.write_report(self.progress, self.steps)

    def note_bad_files(self, found: dict[str, str]) -> None:
        """Count files that could not be read.

        Raises:
            DataError: When they are more than the recipe allows.
        """
        bad_files = self.progress.bad_files | found
        count, allowed = len(bad_files), self.recipe.data.max_bad_files
        if count > allowed:
            path, why = next(reversed(bad_files.items()))
            raise DataError(
                f"{count} files cannot be read, more than data.max_bad_files = {allowed}; the last: {path} {why}"
            )
        self.progress.bad_files = bad_files

    def tell(self, event: Event) -> None:
        if self.process_group.is_main_process:
            for callback in self.callbacks:
                callback(event)

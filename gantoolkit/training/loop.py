"""The training loop: batches, steps, and what is logged, drawn, measured and saved between them; for any system and recipe."""

import gc
import math
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import astuple
from functools import partial
from pathlib import Path

import torch

from gantoolkit.data import CacheMode, LoadedBatch, TrainingBatches, open_dataset
from gantoolkit.errors import DataError, TrainingError
from gantoolkit.recipes import Recipe
from gantoolkit.runs import RunFolder
from gantoolkit.runs.generator_files import save_generators
from gantoolkit.runs.log import RunningMeans
from gantoolkit.runs.progress import describe_bad_files, describe_notes
from gantoolkit.runtime.arithmetic import Arithmetic
from gantoolkit.runtime.device import current_device
from gantoolkit.runtime.precision import backend_flags
from gantoolkit.runtime.randomness import isolated_random_state, seed_everything
from gantoolkit.runtime.seeds import derive_seed
from gantoolkit.runtime.threads import warn_of_busy_cores
from gantoolkit.training.agreement import (
    check_dataset,
    check_recipe,
    check_settings,
    describe_dataset,
    find_checkpoint,
    load_together,
)
from gantoolkit.training.building import build_trainer, settle_arithmetic
from gantoolkit.training.cadence import Cadence
from gantoolkit.training.capture import CapturedStep
from gantoolkit.training.distributed import ProcessGroup, is_main_process, join_process_group
from gantoolkit.training.events import (
    Callback,
    CheckpointSaved,
    EndReason,
    Event,
    RunEnded,
    RunStarted,
    SamplesDrawn,
    StepDone,
)
from gantoolkit.training.interrupts import Interrupts
from gantoolkit.training.pending import PendingStep, PendingSteps
from gantoolkit.training.records import Records
from gantoolkit.training.state import RunState

__all__ = ["train"]


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
    """Train to the recipe's last epoch, from the newest checkpoint in the folder if there is one.

    With several processes, every process calls this. The main process reads and writes the folder and calls the callbacks.

    Args:
        folder: The run's folder, with its recipe.
        recipe: The same recipe, resolved.
        data: Folder of the data set.
        device: The device of the networks.
        workers: Loader processes; the result does not depend on them.
        cache: Where decoded images are cached; the result does not depend on it.
        stop_at: The step after which to save and stop.
        callbacks: Called with every event.

    Raises:
        DataError: When the data set cannot be used, or too many files are unreadable.
        CheckpointError: When something cannot be written, or the checkpoints belong to another recipe.
        TrainingError: When losses stay non-finite, or another process was lost.
    """
    with (
        folder.lock() if is_main_process() else nullcontext(),
        current_device(device),
        isolated_random_state(device, deterministic=recipe.training.deterministic),
        Interrupts() as interrupts,
        join_process_group(device, interrupts) as process_group,
    ):
        session = _Session(folder, recipe, data, process_group, device, workers, cache, stop_at, callbacks)
        try:
            settings, precision = recipe.training, session.trainer.precision
            with backend_flags(precision, try_algorithms=not settings.deterministic, compiles=settings.compile):
                end = session.run(interrupts)
        finally:
            if session.records is not None:
                session.records.close()
            del session
            if device.type == "cuda":  # networks refer to themselves, and would keep the memory of their graphs
                gc.collect()
        return end


class _Session:
    """One session of a run: from its start or its newest checkpoint to its end or an interruption."""

    def __init__(
        self,
        folder: RunFolder,
        recipe: Recipe,
        data: Path,
        process_group: ProcessGroup,
        device: torch.device,
        workers: int,
        cache: CacheMode,
        stop_at: int | None,
        callbacks: Sequence[Callback],
    ) -> None:
        self.folder, self.recipe, self.device = folder, recipe, device
        self.process_group, self.callbacks = process_group, callbacks if process_group.is_main_process else ()
        check_settings(recipe, stop_at, process_group)
        checkpoint = find_checkpoint(folder, recipe, process_group)
        # A resumed run keeps the arithmetic that was chosen when it started, perhaps on another machine.
        if checkpoint:
            arithmetic = Arithmetic(checkpoint.progress["precision"], checkpoint.progress["convolution"])
        else:
            arithmetic = Arithmetic(*process_group.broadcast_object(list(astuple(settle_arithmetic(recipe, device)))))
        self.trainer = build_trainer(recipe, device, arithmetic, process_group)
        if device.type == "cpu" and process_group.is_main_process:
            warn_of_busy_cores(self.trainer.system.networks.values())
        self.step = self.trainer.step
        if recipe.training.capture and device.type == "cuda":
            self.step = CapturedStep(self.trainer, warn=recipe.training.capture is True)
        check_recipe(recipe, self.trainer.system, process_group)
        dataset = open_dataset(data, pairing=self.trainer.system.pairing)
        check_dataset(dataset, process_group)
        self.batches = TrainingBatches(
            dataset,
            recipe.data,
            batch_size=recipe.training.batch_size,
            seed=recipe.training.seed,
            workers=workers,
            cache=cache,
            device=device,
            rank=process_group.rank,
            world_size=process_group.world_size,
        )
        self.cadence = Cadence(recipe.training, self.batches.steps_per_epoch, stop_at)
        self.state = RunState(self.trainer, process_group, arithmetic, describe_dataset(dataset), self.cadence.steps)
        # A method would refer back to the session: its trainer would stay in memory until the next garbage collection.
        notify_step = partial(_notify_step, self.callbacks, self.cadence.steps)
        self.pending = PendingSteps(self.state, notify_step, is_cuda=device.type == "cuda")
        if checkpoint is not None:
            self.state.restore(checkpoint, folder)
        self.records: Records | None = None
        if process_group.is_main_process:
            self.records = Records(folder, recipe, self.trainer.system, data, dataset, device, self.state.progress.step)

    def run(self, interrupts: Interrupts) -> RunEnded:
        """Train to where the session stops, save, and write the report."""
        start = self.state.progress.step
        if self.records is not None:
            self.notify(RunStarted(start, self.cadence.steps, self.records.notes))
        if self.state.progress.step == 0:
            self.draw_samples()
        rolled_back = False
        while problem := self.advance(interrupts):
            self.roll_back(problem, again=rolled_back)
            rolled_back = True
        self.save()
        reason: EndReason = "stopped"
        if self.state.progress.step == self.cadence.steps:
            reason = "finished"
            self.draw_samples()
        elif interrupts.received is not None:
            reason = "SIGTERM" if interrupts.received.name == "SIGTERM" else "SIGINT"
        self.write_report()
        end = self.describe_end(start, reason)
        self.notify(end)
        self.process_group.barrier()  # a launcher ends the other processes, which may still save, when one exits
        return end

    def advance(self, interrupts: Interrupts) -> str:
        """Run steps until the session stops or is interrupted; the problem if training cannot continue from here."""
        with closing(self.load(interrupts)) as batches:  # an exception would keep the generator alive, and its workers
            return self.take_steps(batches)

    def take_steps(self, batches: Iterator[LoadedBatch]) -> str:
        """Take one step per batch; the problem if training cannot continue from here."""
        cadence, settings = self.cadence, self.recipe.training
        self.pending.clear()
        start = time.perf_counter() - self.state.progress.seconds
        for batch in batches:
            progress = self.state.progress
            if batch.share:  # otherwise another process counts these images
                self.state.add_flat_images(batch.images)
            self.trainer.begin_epoch(cadence.epoch_of(progress.step + 1))
            seed_everything(derive_seed(settings.seed, "step", progress.step, rank=self.process_group.rank))
            images = {domain: image.to(self.device, non_blocking=True) for domain, image in batch.images.items()}
            result = self.step(images, progress.step, batch.share)
            progress.step = step = progress.step + 1
            self.pending.add(PendingStep(step, result, batch.bad_files, batch.notes))

            needs_results = cadence.logs(step) or cadence.ends_epoch(step) or cadence.uses_networks(step)
            if problem := self.pending.settle(all_steps=needs_results):
                return problem
            if cadence.uses_networks(step) and (problem := self.state.find_non_finite()):
                return problem
            progress.seconds = time.perf_counter() - start
            if cadence.ends_epoch(step):
                self.trainer.end_epoch(self.state.since_epoch.compute())
                self.state.since_epoch = RunningMeans()
            if cadence.logs(step):
                self.write_row()
            # Samples first: measuring may save, and a run that is killed after that does not repeat this step.
            if cadence.samples(step):
                self.draw_samples()
            # During bad steps, the checkpoint before them stays the newest, to roll back to.
            if cadence.evaluates(step) and not self.pending.bad_in_a_row:
                self.evaluate()
            if cadence.saves(step) and not self.pending.bad_in_a_row:
                self.save()
                self.write_report()
        return self.pending.settle(all_steps=True) or self.state.find_non_finite()

    def load(self, interrupts: Interrupts) -> Generator[LoadedBatch, None, None]:
        """The batches of the session; if no more can be loaded, the run is saved first.

        Raises:
            DataError: When there are no images, or too many files are unreadable.
        """
        step = self.state.progress.step
        try:
            loaded = self.batches.iterate(step, self.cadence.stop, should_stop=lambda: interrupts.received is not None)
            with closing(loaded):
                for batch in load_together(loaded, interrupts, self.process_group):
                    self.state.note_bad_files(batch.bad_files, allowed=self.recipe.data.max_bad_files)
                    self.state.note_files(batch.notes)
                    yield batch
        except DataError:
            problem = self.pending.settle(all_steps=True) or self.pending.bad_in_a_row or self.state.find_non_finite()
            if self.state.progress.step and not problem:
                self.save()
                self.write_report()
            raise

    def roll_back(self, problem: str, *, again: bool) -> None:
        """Return to the newest checkpoint.

        Raises:
            TrainingError: When this session was rolled back before, or there is no checkpoint.
        """
        step = self.state.progress.step
        checkpoint = None if again else find_checkpoint(self.folder, self.recipe, self.process_group)
        if checkpoint is not None:
            self.state.restore(checkpoint, self.folder)
        if again or self.state.progress.step == step:
            also = ", also after a rollback to the last checkpoint" if again else ""
            raise TrainingError(
                f"step {step}: {problem}{also}; these steps were not saved. Lower optimizer.lr, or check their data"
            )

    def save(self) -> None:
        """Write a checkpoint, and each generator as a file of its own."""
        checkpoint = self.state.to_checkpoint()
        if self.records is None:
            return
        step = self.state.progress.step
        path = self.folder.save_checkpoint(checkpoint, self.recipe)
        save_generators(self.folder.generators, self.trainer.system, self.recipe, step)
        self.records.write_table()
        self.notify(CheckpointSaved(step, path))

    def evaluate(self) -> None:
        """Log the recipe's metric; if it is the best so far, save this checkpoint and these generators as the best."""
        progress = self.state.progress
        score = self.process_group.broadcast_object(self.records.evaluate(progress.step) if self.records else None)
        if not math.isnan(score) and (progress.best_score is None or score > progress.best_score):
            progress.best_step, progress.best_score = progress.step, score
            # Generators first: a run that is killed in between repeats this step.
            if self.process_group.is_main_process:
                save_generators(self.folder.best_generators, self.trainer.system, self.recipe, progress.step)
            self.save()

    def draw_samples(self) -> None:
        """Write a grid of the fixed samples and their translations."""
        if self.records is not None:
            step = self.state.progress.step
            self.notify(SamplesDrawn(step, self.records.draw_samples(step)))

    def write_row(self) -> None:
        """Append the mean losses since the last row to the log."""
        progress, rates = self.state.progress, self.trainer.learning_rates
        row = {
            "step": progress.step,
            "epoch": self.cadence.epoch_of(progress.step),
            "seconds": round(progress.seconds, 3),
        }
        row |= self.state.since_row.compute() | {f"lr/{name}": rate for name, rate in rates.items()}
        if self.records is not None:
            self.records.write_row(row)
        self.state.since_row = RunningMeans()

    def write_report(self) -> None:
        """Update the report."""
        progress = self.state.update_progress()
        if self.records is not None:
            graph = self.step.describe() if isinstance(self.step, CapturedStep) else ""
            self.records.write_report(progress, self.cadence.steps, graph=graph)

    def describe_end(self, start: int, reason: EndReason) -> RunEnded:
        """The end of a session that began after step `start`."""
        progress = self.state.progress
        notes, passed_over = describe_notes(progress.notes)
        if self.records is not None:
            passed_over = (*self.records.passed_over, *describe_bad_files(progress.bad_files), *passed_over)
        return RunEnded(progress.step, reason, self.folder.report, start, notes, passed_over)

    def notify(self, event: Event) -> None:
        """Call the callbacks, in the main process."""
        _notify(self.callbacks, event)


def _notify(callbacks: Sequence[Callback], event: Event) -> None:
    for callback in callbacks:
        callback(event)


def _notify_step(callbacks: Sequence[Callback], steps: int, pending: PendingStep, skipped: str | None) -> None:
    """Report a step whose result was read."""
    _notify(callbacks, StepDone(pending.step, steps, pending.result.losses, skipped, pending.bad_files, pending.notes))

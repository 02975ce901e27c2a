"""Which images each step uses and how they are cropped: a pure function of the seed, the epoch and the index within it.

The order is therefore the same with any number of workers, and a run resumes in the middle of an epoch exactly.
"""

import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import torch
from torch.utils import data as torch_data

from gantoolkit.data.folders import Dataset
from gantoolkit.data.loading import LoadedBatch, Position, SampleLoader
from gantoolkit.data.sources import CacheMode, open_source
from gantoolkit.data.workers import (
    check_shared_memory,
    load_ahead,
    warn_of_many_workers,
)
from gantoolkit.errors import DataError
from gantoolkit.recipes.settings import DataSettings
from gantoolkit.runtime.torchrun import launched_local_world_size

__all__ = ["TrainingBatches"]


class TrainingBatches:
    """The batches of a whole run, starting at any step.

    An epoch is one pass over the larger domain. A is shuffled. B is drawn at random with replacement, is the partner of A, or
    is shuffled too, depending on the data set's pairing. The last batch of an epoch may be smaller.

    Args:
        dataset: The files of both domains.
        settings: Reading and augmentation.
        batch_size: Samples per batch, over all ranks.
        seed: The run's seed.
        workers: Worker processes that load ahead. 0 loads in this process, as a cache on the device always does.
        cache: Where decoded images are cached. The batches do not depend on it.
        device: The device that trains. With a cache on the device, the batches are created there.
        rank: The rank of this process, which loads its part of every batch.
        world_size: The number of processes.

    Raises:
        DataError: When the batches that the workers load ahead do not fit into shared memory.
    """

    def __init__(
        self,
        dataset: Dataset,
        settings: DataSettings,
        *,
        batch_size: int,
        seed: int,
        workers: int = 0,
        cache: CacheMode = "none",
        device: torch.device | str = "cpu",
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        device = torch.device(device)
        source = open_source(dataset, settings, cache, device)
        self.samples = SampleLoader(dataset, source, settings, seed)
        self.batch_size = batch_size
        self.rank, self.world_size = rank, world_size
        self.workers = 0 if source.on_device else workers
        self.pin_memory = device.type == "cuda" and not source.on_device
        check_shared_memory(
            _batch_bytes(settings, -(-batch_size // world_size)), self.workers, launched_local_world_size()
        )
        warn_of_many_workers(self.workers)

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.samples) // self.batch_size)

    def iterate(
        self, start: int, stop: int, *, should_stop: Callable[[], bool] = lambda: False
    ) -> Generator[LoadedBatch, None, None]:
        """Yield this rank's part of the batches of steps `start` to `stop` (exclusive), counted over the whole run.

        Args:
            should_stop: Whether to stop waiting for a worker; asked about once a second.

        Raises:
            LoadingInterruptedError: When `should_stop` returned True.
            DataError: When a domain has no readable image, or a worker has ended or sends nothing for `WORKER_TIMEOUT_SECONDS`.
                (Without workers there is no timeout: the run waits as long as the file system hangs.)
        """
        batches = load_ahead(
            self.samples,
            _BatchSampler(self, start, stop),
            self.samples.collate,
            workers=self.workers,
            pin_memory=self.pin_memory,
            describe=lambda index: self._describe(start + index),
            should_stop=should_stop,
        )
        warned = False
        with closing(batches):  # an exception may keep this generator alive, and workers with it
            for step, batch in zip(range(start, stop), batches, strict=True):
                if batch.failure and not warned:  # once for all workers
                    warnings.warn(f"{batch.failure}; images are decoded each time", stacklevel=2)
                    warned = True
                if batch.error:
                    raise DataError(batch.error)
                for domain in "AB":
                    if domain not in batch.images:
                        path, reason = next(reversed(batch.bad_files.items()))
                        folder = Path(path).parent
                        missing = "" if folder.is_dir() else f"; the folder {folder} no longer exists"
                        raise DataError(
                            f"domain {domain}: no image can be read; the last one, {path}, {reason}{missing}"
                        )
                yield replace(batch, share=self._rank_part(step)[1])

    def positions(self, step: int) -> list[Position]:
        """The samples of a step, over all ranks."""
        epoch, batch = divmod(step, self.steps_per_epoch)
        first = batch * self.batch_size
        return [Position(epoch, index) for index in range(first, min(first + self.batch_size, len(self.samples)))]

    def rank_positions(self, step: int) -> list[Position]:
        """This rank's samples of a step. With fewer samples than ranks, a rank without one repeats the first sample."""
        return self.positions(step)[self._rank_part(step)[0]]

    def _rank_part(self, step: int) -> tuple[slice, float]:
        """This rank's slice of a step's samples, split as evenly as possible, and its share of them (0 if it has none)."""
        count = len(self.positions(step))
        size, more = divmod(count, self.world_size)
        first = self.rank * size + min(self.rank, more)
        last = first + size + (self.rank < more)
        return (slice(first, last), (last - first) / count) if last > first else (slice(0, 1), 0.0)

    def files(self, step: int) -> list[Path]:
        """The files that this rank reads for a step, if all of them are readable."""
        return [path for position in self.rank_positions(step) for path in self.samples.files(position)]

    def _describe(self, step: int) -> str:
        return f"Step {step + 1} waits for {', '.join(map(str, self.files(step)))}"


class _BatchSampler(torch_data.Sampler[list[Position]]):
    """The sample positions of each step, computed on demand."""

    def __init__(self, batches: TrainingBatches, start: int, stop: int) -> None:
        self.batches = batches
        self.steps = range(start, stop)

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[list[Position]]:
        return map(self.batches.rank_positions, self.steps)


def _batch_bytes(settings: DataSettings, samples: int) -> int:
    """The size of a batch, which holds floats."""
    return samples * (settings.channels_A + settings.channels_B) * settings.crop_size**2 * 4

"""Which images each step uses and how they are cropped: a pure function of the seed, the epoch and the index within it.

The order is therefore the same with any number of workers, and a run resumes in the middle of an epoch exactly.
"""

import random
import signal
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from multiprocessing import resource_tracker
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.utils import data as torch_data

from gantoolkit.data.folders import Dataset
from gantoolkit.data.sources import CacheMode, Source, open_source
from gantoolkit.errors import DataError
from gantoolkit.files.atomic import printable
from gantoolkit.recipes.settings import DataSettings
from gantoolkit.runtime.seeds import derive_seed

__all__ = ["WORKER_TIMEOUT_SECONDS", "LoadedBatch", "TrainingBatches"]

WORKER_TIMEOUT_SECONDS = 600.0
"""Timeout for a batch from a worker process, after which the file system is assumed to hang."""


@dataclass(frozen=True)
class LoadedBatch:
    """The images of one step, and the problems met while loading them.

    Args:
        images: One batch per domain.
        bad_files: Files that could not be read, with the reason.
        failure: Why the cache accepts no more images; empty if it works.
        share: The fraction of the step's images, over all ranks, that this rank holds.
    """

    images: dict[str, Tensor]
    bad_files: dict[str, str]
    failure: str = ""
    share: float = 1.0

    def pin_memory(self) -> "LoadedBatch":
        """Copy the images to pinned memory; `DataLoader` calls this."""
        return replace(self, images={domain: images.pin_memory() for domain, images in self.images.items()})


@dataclass(frozen=True)
class _Position:
    """The position of a sample: its epoch and its index within the epoch."""

    epoch: int
    index: int


@dataclass(frozen=True)
class _Sample:
    """One crop of each domain that has a readable image, in the form that its source returns."""

    crops: dict[str, Any]
    bad_files: dict[str, str]
    failure: str


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
        self.samples = _Samples(dataset, source, seed)
        self.batch_size = batch_size
        self.rank, self.world_size = rank, world_size
        self.workers = 0 if source.on_device else workers
        self.pin_memory = device.type == "cuda" and not source.on_device

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.samples) // self.batch_size)

    def iterate(self, start: int, stop: int) -> Iterator[LoadedBatch]:
        """Yield this rank's part of the batches of steps `start` to `stop` (exclusive), counted over the whole run.

        Raises:
            DataError: When a domain has no readable image, or a worker has ended or sends nothing for `WORKER_TIMEOUT_SECONDS`.
                (Without workers there is no timeout: the run waits as long as the file system hangs.)
        """
        loader: torch_data.DataLoader[LoadedBatch] = torch_data.DataLoader(
            self.samples,
            batch_sampler=_BatchSampler(self, start, stop),  # type: ignore[arg-type]
            num_workers=self.workers,
            timeout=WORKER_TIMEOUT_SECONDS if self.workers else 0,
            collate_fn=self.samples.collate,
            pin_memory=self.pin_memory,
            # Spawning costs a second, but a forked process may deadlock on the locks of torch's threads.
            multiprocessing_context="spawn" if self.workers else None,
            worker_init_fn=_ignore_signals,
            generator=torch.Generator(),  # otherwise the loader draws a seed from the global generator
        )
        warned = False
        for step, batch in zip(range(start, stop), _explain_lost_workers(loader, start, self.files), strict=True):
            if batch.failure and not warned:  # once for all workers
                warnings.warn(f"{batch.failure}; images are decoded each time", stacklevel=2)
                warned = True
            for domain in "AB":
                if domain not in batch.images:
                    path, reason = next(reversed(batch.bad_files.items()))
                    folder = Path(path).parent
                    missing = "" if folder.is_dir() else f"; the folder {folder} no longer exists"
                    raise DataError(f"domain {domain}: no image can be read; the last one, {path}, {reason}{missing}")
            yield replace(batch, share=self._rank_part(step)[1])

    def positions(self, step: int) -> list[_Position]:
        """The samples of a step, over all ranks."""
        epoch, batch = divmod(step, self.steps_per_epoch)
        first = batch * self.batch_size
        return [_Position(epoch, index) for index in range(first, min(first + self.batch_size, len(self.samples)))]

    def rank_positions(self, step: int) -> list[_Position]:
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


class _BatchSampler:
    """The sample positions of each step, computed on demand."""

    def __init__(self, batches: TrainingBatches, start: int, stop: int) -> None:
        self.batches = batches
        self.steps = range(start, stop)

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[list[_Position]]:
        return map(self.batches.rank_positions, self.steps)


class _Samples(torch_data.Dataset[_Sample]):
    def __init__(self, dataset: Dataset, source: Source, seed: int) -> None:
        self.dataset = dataset
        self.source = source
        self.seed = seed
        self._shuffled: tuple[int, list[int]] = (-1, [])

    def __len__(self) -> int:
        return max(len(self.dataset.files("A")), len(self.dataset.files("B")))

    def __getitem__(self, position: _Position) -> _Sample:  # type: ignore[override]
        """Load the images of a position. The next readable file replaces an unreadable one."""
        start_A, start_B = self._first_indices(position)
        count_A, count_B = len(self.dataset.files("A")), len(self.dataset.files("B"))
        bad_files: dict[str, str] = {}
        if self.dataset.pairing == "paired":  # the images of a pair are skipped together, cropped and flipped alike
            pairs = ((("A", i, "crop"), ("B", i, "crop")) for i in _cycle(start_A, count_A))
            crops = self._load_first_readable(pairs, position, bad_files)
        else:
            images_A = ((("A", i, "crop A"),) for i in _cycle(start_A, count_A))
            images_B = ((("B", i, "crop B"),) for i in _cycle(start_B, count_B))
            crops = self._load_first_readable(images_A, position, bad_files)
            crops |= self._load_first_readable(images_B, position, bad_files)
        return _Sample(crops, bad_files, self.source.failure)

    def files(self, position: _Position) -> list[Path]:
        """The files that are tried first for a position."""
        start_A, start_B = self._first_indices(position)
        return [
            self._path("A", start_A % len(self.dataset.files("A"))),
            self._path("B", start_B % len(self.dataset.files("B"))),
        ]

    def _first_indices(self, position: _Position) -> tuple[int, int]:
        """The indices of the images of A and B that are tried first, modulo the size of each domain."""
        index = self._order(position.epoch)[position.index]
        if self.dataset.pairing in ("paired", "sequential"):
            return index, index
        rng = random.Random(derive_seed(self.seed, "draw B", position.epoch, position.index))
        return index, rng.randrange(len(self.dataset.files("B")))

    def _path(self, domain: str, index: int) -> Path:
        return self.dataset.files(domain)[index].path

    def _load_first_readable(
        self, candidates: Iterable[Sequence[tuple[str, int, str]]], position: _Position, bad_files: dict[str, str]
    ) -> dict[str, Any]:
        """Load the first candidate whose images are all readable and record the unreadable files; empty if there is none."""
        for images in candidates:
            crops: dict[str, Any] = {}
            for domain, index, purpose in images:
                rng = random.Random(derive_seed(self.seed, purpose, position.epoch, position.index))
                try:
                    crops[domain] = self.source.load_crop(domain, index, rng)
                except DataError as error:
                    path = self._path(domain, index)
                    bad_files[printable(path)] = (
                        str(error).removeprefix(f"{path}: ").removeprefix(f"{printable(path)}: ")
                    )
            if len(crops) == len(images):
                return crops
        return {}

    def collate(self, samples: list[_Sample]) -> LoadedBatch:
        """Batch the samples. A domain is left out if a sample has no image of it."""
        domains = [domain for domain in "AB" if all(domain in sample.crops for sample in samples)]
        images = {
            domain: self.source.collate(domain, [sample.crops[domain] for sample in samples]) for domain in domains
        }
        bad_files = {path: reason for sample in samples for path, reason in sample.bad_files.items()}
        return LoadedBatch(images, bad_files, samples[-1].failure)

    def _order(self, epoch: int) -> list[int]:
        if self._shuffled[0] != epoch:
            generator = torch.Generator().manual_seed(derive_seed(self.seed, "order", epoch))
            self._shuffled = (epoch, torch.randperm(len(self), generator=generator).tolist())
        return self._shuffled[1]


def _explain_lost_workers(
    loader: "torch_data.DataLoader[LoadedBatch]", start: int, files_of: Callable[[int], Sequence[Path]]
) -> Iterator[LoadedBatch]:
    with _signals_blocked() if loader.num_workers else nullcontext():
        batches = iter(loader)
    step = start
    try:
        for batch in batches:
            yield batch
            step += 1
    except RuntimeError as error:
        if "DataLoader timed out" in str(error):
            _end_workers(batches)
            files = ", ".join(map(str, files_of(step)))
            raise DataError(
                f"no images were loaded for {WORKER_TIMEOUT_SECONDS:.0f} s; the file system may hang. Step {step + 1} waits "
                f"for {files}; resume the run when they can be read again"
            ) from error
        if "DataLoader worker" not in str(error):
            raise
        raise DataError(
            "a worker process that loads images has ended. It may have run out of memory, or have imported a script that "
            'starts training on import (put that code under `if __name__ == "__main__":`, or set workers = 0)'
        ) from error


def _end_workers(batches: Any) -> None:
    """Kill workers that hang: at exit, Python would wait for them forever."""
    batches._shutdown_workers()
    for worker in batches._workers:
        worker.kill()


_MAIN_PROCESS_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Block signals in the workers started here until `_ignore_signals` has run in them."""
    resource_tracker.ensure_running()  # it unblocks signals when it starts
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _MAIN_PROCESS_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _ignore_signals(worker: int) -> None:
    # Ctrl-C and the SIGTERM of a service manager or job scheduler reach the whole process group. The main process finishes
    # its step first and may still need a batch from this worker. A second SIGTERM comes from the loader.
    def ignore_once(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, ignore_once)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _MAIN_PROCESS_SIGNALS)


def _cycle(start: int, count: int) -> Iterator[int]:
    """Yield every index once, starting at `start` modulo `count`."""
    return ((start + offset) % count for offset in range(count))

"""Which images each step uses and how they are cropped: a pure function of the seed, the epoch and the index within it.

The order is therefore the same with any number of workers, and a run resumes in the middle of an epoch exactly.
"""

import random
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils import data as torch_data

from gantoolkit.data.augmentation import check_crop_fits, check_pair, draw_windows
from gantoolkit.data.folders import Dataset
from gantoolkit.data.notes import Note
from gantoolkit.data.reader import LoadedImage
from gantoolkit.data.sources import CacheMode, Source, open_source
from gantoolkit.data.workers import (
    check_shared_memory,
    explain_shared_memory,
    is_worker,
    load_ahead,
    warn_of_many_workers,
)
from gantoolkit.errors import DataError
from gantoolkit.files.atomic import printable
from gantoolkit.recipes.settings import DataSettings
from gantoolkit.runtime.seeds import derive_seed
from gantoolkit.runtime.torchrun import launched_local_world_size

__all__ = ["LoadedBatch", "TrainingBatches"]


@dataclass(frozen=True)
class LoadedBatch:
    """The images of one step, and what was noticed while loading them.

    Args:
        images: One batch per domain.
        bad_files: Files that could not be read, with the reason.
        notes: The notes on the files that were read.
        failure: Why the cache accepts no more images; empty if it works.
        error: Why a worker process could not pass the images on; empty if it could.
        share: The fraction of the step's images, over all ranks, that this rank holds.
    """

    images: dict[str, Tensor]
    bad_files: dict[str, str]
    notes: dict[str, tuple[Note, ...]] = field(default_factory=dict)
    failure: str = ""
    error: str = ""
    share: float = 1.0

    def share_memory(self) -> "LoadedBatch":
        """Move the images to shared memory, in which a worker process passes them on."""
        try:
            for images in self.images.values():
                images.share_memory_()
        except (RuntimeError, OSError) as error:
            return replace(self, images={}, error=explain_shared_memory(error))
        return self

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
    remarks: "_Remarks"
    failure: str


@dataclass(frozen=True)
class _Remarks:
    """What was noticed about files, by the name of the file."""

    bad_files: dict[str, str] = field(default_factory=dict)
    notes: dict[str, tuple[Note, ...]] = field(default_factory=dict)

    @contextmanager
    def catch(self, path: Path) -> Iterator[None]:
        """Record a `DataError` of the block as the reason why a file cannot be used."""
        try:
            yield
        except DataError as error:
            name = printable(path)
            self.bad_files[name] = str(error).removeprefix(f"{path}: ").removeprefix(f"{name}: ")


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
        self.samples = _Samples(dataset, source, settings, seed)
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

    def _describe(self, step: int) -> str:
        return f"Step {step + 1} waits for {', '.join(map(str, self.files(step)))}"


class _BatchSampler(torch_data.Sampler[list[_Position]]):
    """The sample positions of each step, computed on demand."""

    def __init__(self, batches: TrainingBatches, start: int, stop: int) -> None:
        self.batches = batches
        self.steps = range(start, stop)

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[list[_Position]]:
        return map(self.batches.rank_positions, self.steps)


class _Samples(torch_data.Dataset[_Sample]):
    def __init__(self, dataset: Dataset, source: Source, settings: DataSettings, seed: int) -> None:
        self.dataset = dataset
        self.source = source
        self.settings = settings
        self.seed = seed
        self._shuffled: tuple[int, list[int]] = (-1, [])

    def __len__(self) -> int:
        return max(len(self.dataset.files("A")), len(self.dataset.files("B")))

    def __getitem__(self, position: _Position) -> _Sample:  # type: ignore[override]
        """Load the images of a position. The next readable file replaces an unreadable one."""
        start_A, start_B = self._first_indices(position)
        count_A, count_B = len(self.dataset.files("A")), len(self.dataset.files("B"))
        remarks = _Remarks()
        if self.dataset.pairing == "paired":  # the images of a pair are skipped together, cropped and flipped alike
            pairs = ({"A": index, "B": index} for index in _cycle(start_A, count_A))
            crops = self._crop_first_readable(pairs, "crop", position, remarks)
        else:
            images_A = ({"A": index} for index in _cycle(start_A, count_A))
            images_B = ({"B": index} for index in _cycle(start_B, count_B))
            crops = self._crop_first_readable(images_A, "crop A", position, remarks)
            crops |= self._crop_first_readable(images_B, "crop B", position, remarks)
        return _Sample(crops, remarks, self.source.failure)

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

    def _crop_first_readable(
        self, candidates: Iterable[Mapping[str, int]], purpose: str, position: _Position, remarks: _Remarks
    ) -> dict[str, Any]:
        """Crop the first candidate, an index for each of some domains, whose images can be used; empty if there is none."""
        for candidate in candidates:
            images = self._load(candidate, remarks)
            if len(images) == len(candidate):
                rng = random.Random(derive_seed(self.seed, purpose, position.epoch, position.index))
                windows = draw_windows([image.size for image in images.values()], self.settings, rng)
                return {
                    domain: self.source.crop(domain, image, window)
                    for (domain, image), window in zip(images.items(), windows, strict=True)
                }
        return {}

    def _load(self, candidate: Mapping[str, int], remarks: _Remarks) -> dict[str, LoadedImage]:
        """Load the images of a candidate that can be used. What is wrong with the others is noted."""
        images: dict[str, LoadedImage] = {}
        for domain, index in candidate.items():
            path = self._path(domain, index)
            with remarks.catch(path):
                image = self.source.load(domain, index)
                if image.notes:
                    remarks.notes[printable(path)] = image.notes
                check_crop_fits(image.size, self.settings)
                images[domain] = image
        if len(images) == 2:
            path, partner = (self._path(domain, index) for domain, index in candidate.items())
            with remarks.catch(path):
                check_pair(images["A"].size, printable(partner), images["B"].size, self.settings)
                return images
            return {}
        return images

    def collate(self, samples: list[_Sample]) -> LoadedBatch:
        """Batch the samples. A domain is left out if a sample has no image of it."""
        domains = [domain for domain in "AB" if all(domain in sample.crops for sample in samples)]
        batch = LoadedBatch(
            {domain: self.source.collate(domain, [sample.crops[domain] for sample in samples]) for domain in domains},
            bad_files={path: reason for sample in samples for path, reason in sample.remarks.bad_files.items()},
            notes={path: notes for sample in samples for path, notes in sample.remarks.notes.items()},
            failure=samples[-1].failure,
        )
        return batch.share_memory() if is_worker() else batch

    def _order(self, epoch: int) -> list[int]:
        if self._shuffled[0] != epoch:
            generator = torch.Generator().manual_seed(derive_seed(self.seed, "order", epoch))
            self._shuffled = (epoch, torch.randperm(len(self), generator=generator).tolist())
        return self._shuffled[1]


def _batch_bytes(settings: DataSettings, samples: int) -> int:
    """The size of a batch, which holds floats."""
    return samples * (settings.channels_A + settings.channels_B) * settings.crop_size**2 * 4


def _cycle(start: int, count: int) -> Iterator[int]:
    """Yield every index once, starting at `start` modulo `count`."""
    return ((start + offset) % count for offset in range(count))

"""Which images a step sees, and how they are cropped: a pure function of the seed, the epoch and the place in it.

So the order is the same with any number of loader processes, and a run continues in the middle of an epoch as if it had
never stopped.
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

__all__ = ["STALLED_SECONDS", "LoadedBatch", "TrainingBatches"]

STALLED_SECONDS = 600.0
"""How long a batch from another process may take before its files' system is said to stand still."""


@dataclass(frozen=True)
class LoadedBatch:
    """One step's images, and what went wrong on the way to them.

    Args:
        images: A batch of each domain.
        bad_files: Files that could not be read, with the reason.
        failure: Why a cache takes nothing more; empty if there is no reason.
        share: The part of the step's images, in all processes, that these are.
    """

    images: dict[str, Tensor]
    bad_files: dict[str, str]
    failure: str = ""
    share: float = 1.0

    def pin_memory(self) -> "LoadedBatch":
        """The same in memory from which a GPU copies while both compute; a loader calls this."""
        return replace(self, images={domain: images.pin_memory() for domain, images in self.images.items()})


@dataclass(frozen=True)
class _Place:
    """Where a sample stands: in which epoch, and at which place of it."""

    epoch: int
    index: int


@dataclass(frozen=True)
class _Sample:
    """One image of each domain, as far as there is one, as its source takes it; the rest as in a batch."""

    taken: dict[str, Any]
    bad_files: dict[str, str]
    failure: str


class TrainingBatches:
    """The batches of a whole run, from any step on.

    An epoch goes once through the larger domain: A in a shuffled order, B drawn at random; or B as the partner of A, or in a
    shuffled order too, as the data set's pairing says. Its last batch is smaller where the number of images asks for it.

    Args:
        dataset: Files of both domains.
        settings: Reading and augmentation.
        batch_size: Pairs in a batch.
        seed: The run's seed.
        workers: ProcessGroup that load ahead; 0 loads in this one, and so does a cache on the device.
        cache: Where decoded images are kept; the batches are the same.
        device: Where the batches will be needed; they come from there if the images are kept there.
        rank: Which of the processes that share the run asks: each gets its part of every batch.
        world_size: How many they are.
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
        """This process's part of the batches of steps `start` to `stop` (exclusive), counted over the whole run.

        Raises:
            DataError: When a domain has no image that can be read, or a process that loads has ended, or gives nothing for
                `STALLED_SECONDS`. (A run that loads its images itself waits with a file system that stands still.)
        """
        loader: torch_data.DataLoader[LoadedBatch] = torch_data.DataLoader(
            self.samples,
            batch_sampler=_Places(self, start, stop),  # type: ignore[arg-type]
            num_workers=self.workers,
            timeout=STALLED_SECONDS if self.workers else 0,
            collate_fn=self.samples.collate,
            pin_memory=self.pin_memory,
            # A fresh process costs a second, and forked ones may hang on the locks of torch's threads.
            multiprocessing_context="spawn" if self.workers else None,
            worker_init_fn=_leave_signals_to_the_run,
            generator=torch.Generator(),  # else the loader draws a seed from the global generator
        )
        complained = False
        for step, batch in zip(range(start, stop), _explain_lost_workers(loader, start, self.files), strict=True):
            if batch.failure and not complained:  # once for all workers
                warnings.warn(f"{batch.failure}; images are decoded each time", stacklevel=2)
                complained = True
            for domain in "AB":
                if domain not in batch.images:
                    path, why = next(reversed(batch.bad_files.items()))
                    gone = "" if Path(path).parent.is_dir() else f"; the folder {Path(path).parent} has gone"
                    raise DataError(f"domain {domain}: no image can be read; the last one, {path}, {why}{gone}")
            yield replace(batch, share=self._cut(step)[1])

    def places(self, step: int) -> list[_Place]:
        """Which samples step `step` is made of, in all processes."""
        epoch, batch = divmod(step, self.steps_per_epoch)
        first = batch * self.batch_size
        return [_Place(epoch, index) for index in range(first, min(first + self.batch_size, len(self.samples)))]

    def own_places(self, step: int) -> list[_Place]:
        """Which of them are this process's; another one's where there are too few for all."""
        return self.places(step)[self._cut(step)[0]]

    def _cut(self, step: int) -> tuple[slice, float]:
        """This process's part of a step's samples, as even as can be, and how much of them it is: 0 where it has none."""
        count = len(self.places(step))
        size, more = divmod(count, self.world_size)
        first = self.rank * size + min(self.rank, more)
        last = first + size + (self.rank < more)
        return (slice(first, last), (last - first) / count) if last > first else (slice(0, 1), 0.0)

    def files(self, step: int) -> list[Path]:
        """The files that this process reads for step `step`, if all can be read."""
        return [path for place in self.own_places(step) for path in self.samples.files(place)]


class _Places:
    """The steps of a run as a loader asks for them, none of them kept."""

    def __init__(self, batches: TrainingBatches, start: int, stop: int) -> None:
        self.batches = batches
        self.steps = range(start, stop)

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[list[_Place]]:
        return map(self.batches.own_places, self.steps)


class _Samples(torch_data.Dataset[_Sample]):
    def __init__(self, dataset: Dataset, source: Source, seed: int) -> None:
        self.dataset = dataset
        self.source = source
        self.seed = seed
        self._shuffled: tuple[int, list[int]] = (-1, [])

    def __len__(self) -> int:
        return max(len(self.dataset.files("A")), len(self.dataset.files("B")))

    def __getitem__(self, place: _Place) -> _Sample:  # type: ignore[override]
        """The images of one place; where a file cannot be read, the next one's."""
        at, start_B = self._starts(place)
        count_A, count_B = len(self.dataset.files("A")), len(self.dataset.files("B"))
        bad_files: dict[str, str] = {}
        if self.dataset.pairing == "paired":  # a pair is left out together, and cropped and mirrored alike
            pairs = ((("A", i, "crop"), ("B", i, "crop")) for i in _round(at, count_A))
            taken = self._first_readable(pairs, place, bad_files)
        else:
            images_A = ((("A", i, "crop A"),) for i in _round(at, count_A))
            images_B = ((("B", i, "crop B"),) for i in _round(start_B, count_B))
            taken = self._first_readable(images_A, place, bad_files)
            taken |= self._first_readable(images_B, place, bad_files)
        return _Sample(taken, bad_files, self.source.failure)

    def files(self, place: _Place) -> list[Path]:
        """The files of one place, the first that are tried."""
        at, start_B = self._starts(place)
        return [
            self._path("A", at % len(self.dataset.files("A"))),
            self._path("B", start_B % len(self.dataset.files("B"))),
        ]

    def _starts(self, place: _Place) -> tuple[int, int]:
        """Numbers (modulo their counts) of the images of A and B that are tried first."""
        at = self._order(place.epoch)[place.index]
        if self.dataset.pairing in ("paired", "sequential"):
            return at, at
        draws = random.Random(derive_seed(self.seed, "draw B", place.epoch, place.index))
        return at, draws.randrange(len(self.dataset.files("B")))

    def _path(self, domain: str, index: int) -> Path:
        return self.dataset.files(domain)[index].path

    def _first_readable(
        self, candidates: Iterable[Sequence[tuple[str, int, str]]], place: _Place, bad_files: dict[str, str]
    ) -> dict[str, Any]:
        """Take the images of the first candidate that are all readable, noting the others; nothing if there is none."""
        for images in candidates:
            taken: dict[str, Any] = {}
            for domain, index, purpose in images:
                draws = random.Random(derive_seed(self.seed, purpose, place.epoch, place.index))
                try:
                    taken[domain] = self.source.take(domain, index, draws)
                except DataError as error:
                    path = self._path(domain, index)
                    bad_files[printable(path)] = (
                        str(error).removeprefix(f"{path}: ").removeprefix(f"{printable(path)}: ")
                    )
            if len(taken) == len(images):
                return taken
        return {}

    def collate(self, samples: list[_Sample]) -> LoadedBatch:
        """A batch of the domains of which every sample has an image."""
        domains = [domain for domain in "AB" if all(domain in sample.taken for sample in samples)]
        images = {domain: self.source.join(domain, [sample.taken[domain] for sample in samples]) for domain in domains}
        bad_files = {path: why for sample in samples for path, why in sample.bad_files.items()}
        return LoadedBatch(images, bad_files, samples[-1].failure)

    def _order(self, epoch: int) -> list[int]:
        if self._shuffled[0] != epoch:
            generator = torch.Generator().manual_seed(derive_seed(self.seed, "order", epoch))
            self._shuffled = (epoch, torch.randperm(len(self), generator=generator).tolist())
        return self._shuffled[1]


def _explain_lost_workers(
    loader: "torch_data.DataLoader[LoadedBatch]", start: int, files_of: Callable[[int], Sequence[Path]]
) -> Iterator[LoadedBatch]:
    with _signals_held() if loader.num_workers else nullcontext():
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
                f"no images came for {STALLED_SECONDS:.0f} s; the file system may stand still. Step {step + 1} waits for "
                f"{files}; continue the run when they can be read again"
            ) from error
        if "DataLoader worker" not in str(error):
            raise
        raise DataError(
            "a process that loads images has ended; it may have run out of memory, or it imported a script that starts "
            'training when it is imported (put that under `if __name__ == "__main__":`, or take workers = 0)'
        ) from error


def _end_workers(batches: Any) -> None:
    """End processes that hang: at its own end Python would wait for them without a bound."""
    batches._shutdown_workers()
    for worker in batches._workers:
        worker.kill()


_LEFT_TO_THE_RUN = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def _signals_held() -> Iterator[None]:
    """ProcessGroup started here come up with signals held back, until they leave them to the run."""
    resource_tracker.ensure_running()  # when it starts it lets signals through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _LEFT_TO_THE_RUN)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _leave_signals_to_the_run(worker: int) -> None:
    # Ctrl-C reaches the whole process group, and so does the SIGTERM of a service that is stopped or a job whose time is over;
    # the run wants to finish its step, with a batch that may still be on its way. A second SIGTERM is the loader's own.
    def pass_over(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, pass_over)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _LEFT_TO_THE_RUN)


def _round(start: int, count: int) -> Iterator[int]:
    """Every index once, from `start` (modulo `count`) on."""
    return ((start + offset) % count for offset in range(count))

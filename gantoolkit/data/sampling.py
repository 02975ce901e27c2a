"""Which images a step sees, and how they are cropped: a pure function of the seed, the epoch and the place in it.

So the order is the same with any number of loader processes, and a run continues in the middle of an epoch as if it had
never stopped.
"""

import random
import signal
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils import data as torch_data

from gantoolkit.data.augmentation import augment, resize
from gantoolkit.data.folders import Dataset
from gantoolkit.data.images import Half, ImageFile, read_image
from gantoolkit.errors import DataError
from gantoolkit.seeds import derive_seed
from gantoolkit.settings import DataSettings

__all__ = ["LoadedBatch", "TrainingBatches"]


@dataclass(frozen=True)
class LoadedBatch:
    """One step's images, and the files that could not be read on the way to them, with the reason."""

    images: dict[str, Tensor]
    bad_files: dict[str, str]


@dataclass(frozen=True)
class _Place:
    """Where a sample stands: in which epoch, and at which place of it."""

    epoch: int
    index: int


class TrainingBatches:
    """The batches of a whole run, from any step on.

    An epoch goes once through the larger domain: A in a shuffled order, B drawn at random; or B as the partner of A, or in a
    shuffled order too, as the data set's pairing says. Its last batch is smaller where the number of images asks for it.

    Args:
        dataset: Files of both domains.
        settings: Reading and augmentation.
        batch_size: Pairs in a batch.
        seed: The run's seed.
        workers: Processes that load ahead; 0 loads in this one.
    """

    def __init__(
        self, dataset: Dataset, settings: DataSettings, *, batch_size: int, seed: int, workers: int = 0
    ) -> None:
        self.samples = _Samples(dataset, settings, seed)
        self.batch_size = batch_size
        self.workers = workers

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.samples) // self.batch_size)

    def iterate(self, start: int, stop: int) -> Iterator[LoadedBatch]:
        """The batches of steps `start` to `stop` (exclusive), counted over the whole run."""
        loader: torch_data.DataLoader[LoadedBatch] = torch_data.DataLoader(
            self.samples,
            batch_sampler=_Places(self, start, stop),  # type: ignore[arg-type]
            num_workers=self.workers,
            collate_fn=_collate,
            # A fresh process costs a second, and forked ones may hang on the locks of torch's threads.
            multiprocessing_context="spawn" if self.workers else None,
            worker_init_fn=_leave_signals_to_the_run,
            generator=torch.Generator(),  # else the loader draws a seed from the global generator
        )
        for batch in _explain_lost_workers(loader):
            for domain in "AB":
                if domain not in batch.images:
                    path, why = next(reversed(batch.bad_files.items()))
                    raise DataError(f"domain {domain}: no image can be read; the last one, {path}, {why}")
            yield batch

    def places(self, step: int) -> list[_Place]:
        """Which samples step `step` is made of."""
        epoch, batch = divmod(step, self.steps_per_epoch)
        first = batch * self.batch_size
        return [_Place(epoch, index) for index in range(first, min(first + self.batch_size, len(self.samples)))]


class _Places:
    """The steps of a run as a loader asks for them, none of them kept."""

    def __init__(self, batches: TrainingBatches, start: int, stop: int) -> None:
        self.batches = batches
        self.steps = range(start, stop)

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[list[_Place]]:
        return map(self.batches.places, self.steps)


class _Samples(torch_data.Dataset[LoadedBatch]):
    def __init__(self, dataset: Dataset, settings: DataSettings, seed: int) -> None:
        self.dataset = dataset
        self.settings = settings
        self.seed = seed
        self._shuffled: tuple[int, list[int]] = (-1, [])

    def __len__(self) -> int:
        return max(len(self.dataset.A), len(self.dataset.B))

    def __getitem__(self, place: _Place) -> LoadedBatch:  # type: ignore[override]
        """The images of one place; where a file cannot be read, the next one's."""
        at = self._order(place.epoch)[place.index]
        draws = random.Random(derive_seed(self.seed, "draw B", place.epoch, place.index))
        A, B, settings = self.dataset.A, self.dataset.B, self.settings
        bad_files: dict[str, str] = {}
        if self.dataset.pairing == "paired":  # a pair is left out together, and cropped and mirrored alike
            image_A, image_B = self._first_readable(
                (
                    ((A[i], settings.channels_A, "crop"), (B[i], settings.channels_B, "crop"))
                    for i in _round(at, len(A))
                ),
                place,
                bad_files,
            ) or (None, None)
        else:
            files_A = (((A[i], settings.channels_A, "crop A"),) for i in _round(at, len(A)))
            start_B = at if self.dataset.pairing == "sequential" else draws.randrange(len(B))
            files_B = (((B[i], settings.channels_B, "crop B"),) for i in _round(start_B, len(B)))
            (image_A,) = self._first_readable(files_A, place, bad_files) or (None,)
            (image_B,) = self._first_readable(files_B, place, bad_files) or (None,)
        images = {domain: image for domain, image in (("A", image_A), ("B", image_B)) if image is not None}
        return LoadedBatch(images, bad_files)

    def _first_readable(
        self, candidates: Iterable[Sequence[tuple[ImageFile, int, str]]], place: _Place, bad_files: dict[str, str]
    ) -> list[Tensor] | None:
        """Read the files of the first candidate that are all readable, noting the others; None if there is none."""
        for files in candidates:
            images = []
            for path, channels, purpose in files:
                draws = random.Random(derive_seed(self.seed, purpose, place.epoch, place.index))
                try:
                    pixels = np.atleast_3d(resize(read_image(path, channels), self.settings))
                    images.append(augment(pixels, self.settings, draws))
                except DataError as error:
                    file = path.path if isinstance(path, Half) else path
                    bad_files[str(file)] = str(error).removeprefix(f"{file}: ")
            if len(images) == len(files):
                return images
        return None

    def _order(self, epoch: int) -> list[int]:
        if self._shuffled[0] != epoch:
            generator = torch.Generator().manual_seed(derive_seed(self.seed, "order", epoch))
            self._shuffled = (epoch, torch.randperm(len(self), generator=generator).tolist())
        return self._shuffled[1]


def _explain_lost_workers(loader: Iterable[LoadedBatch]) -> Iterator[LoadedBatch]:
    try:
        yield from loader
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise DataError(
            "a process that loads images has ended; it may have run out of memory, or it imported a script that starts "
            'training when it is imported (put that under `if __name__ == "__main__":`, or take workers = 0)'
        ) from error


def _leave_signals_to_the_run(worker: int) -> None:
    # Ctrl-C reaches the whole process group; the run wants to finish its step, and needs no new batch for that.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _round(start: int, count: int) -> Iterator[int]:
    """Every index once, from `start` (modulo `count`) on."""
    return ((start + offset) % count for offset in range(count))


def _collate(samples: list[LoadedBatch]) -> LoadedBatch:
    domains = [domain for domain in "AB" if all(domain in sample.images for sample in samples)]
    images = {domain: torch.stack([sample.images[domain] for sample in samples]) for domain in domains}
    return LoadedBatch(images, {path: why for sample in samples for path, why in sample.bad_files.items()})

"""Loading the samples of a step: the first images that can be used, cropped as the seed determines."""

import random
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
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
from gantoolkit.data.sources import Source
from gantoolkit.data.workers import explain_shared_memory, is_worker
from gantoolkit.errors import DataError
from gantoolkit.files.atomic import printable
from gantoolkit.recipes.settings import DataSettings
from gantoolkit.runtime.seeds import derive_seed

__all__ = ["LoadedBatch", "Position", "SampleLoader"]


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
class Position:
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


class SampleLoader(torch_data.Dataset[_Sample]):
    """Loads samples by their position, in this process or in a worker.

    Args:
        dataset: The files of both domains.
        source: Loads and crops images.
        settings: Reading and augmentation.
        seed: The run's seed.
    """

    def __init__(self, dataset: Dataset, source: Source, settings: DataSettings, seed: int) -> None:
        self.dataset = dataset
        self.source = source
        self.settings = settings
        self.seed = seed
        self._shuffled: tuple[int, list[int]] = (-1, [])

    def __len__(self) -> int:
        return max(len(self.dataset.files("A")), len(self.dataset.files("B")))

    def __getitem__(self, position: Position) -> _Sample:  # type: ignore[override]
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

    def files(self, position: Position) -> list[Path]:
        """The files that are tried first for a position."""
        start_A, start_B = self._first_indices(position)
        return [
            self._path("A", start_A % len(self.dataset.files("A"))),
            self._path("B", start_B % len(self.dataset.files("B"))),
        ]

    def _first_indices(self, position: Position) -> tuple[int, int]:
        """The indices of the images of A and B that are tried first, modulo the size of each domain."""
        index = self._order(position.epoch)[position.index]
        if self.dataset.pairing in ("paired", "sequential"):
            return index, index
        rng = random.Random(derive_seed(self.seed, "draw B", position.epoch, position.index))
        return index, rng.randrange(len(self.dataset.files("B")))

    def _path(self, domain: str, index: int) -> Path:
        return self.dataset.files(domain)[index].path

    def _crop_first_readable(
        self, candidates: Iterable[Mapping[str, int]], purpose: str, position: Position, remarks: _Remarks
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


def _cycle(start: int, count: int) -> Iterator[int]:
    """Yield every index once, starting at `start` modulo `count`."""
    return ((start + offset) % count for offset in range(count))

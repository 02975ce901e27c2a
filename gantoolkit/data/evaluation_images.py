"""The images that translations are measured on: test images as a run would see them, and their right translations."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from gantoolkit.data.augmentation import prepare
from gantoolkit.data.encoding import encoding_of
from gantoolkit.data.folders import Dataset, open_dataset
from gantoolkit.data.images import ImageFile
from gantoolkit.data.pixels import read_pixels
from gantoolkit.errors import DataError
from gantoolkit.recipes.settings import DataSettings

__all__ = ["EvaluationImages", "evenly_spaced"]

Item = TypeVar("Item")


@dataclass(frozen=True)
class EvaluationImages:
    """Images of both domains, resized and cropped in the middle as the samples of a run are.

    Args:
        dataset: Their files. `paired`: the files of both folders have the same names, so each has its right translation.
        settings: Channels, and how images are resized.
        skipped: Why files were left out.
    """

    dataset: Dataset
    settings: DataSettings
    skipped: tuple[str, ...] = ()

    @classmethod
    def open(cls, root: str | Path, settings: DataSettings, *, split: str = "test") -> "EvaluationImages":
        """Find the images of a split; they are pairs where every file has a partner of its name.

        Raises:
            DataError: When a folder is missing or empty.
        """
        try:
            dataset = open_dataset(root, split=split, pairing="paired")
        except DataError:
            dataset = open_dataset(root, split=split)
        return cls(dataset, settings)

    @property
    def paired(self) -> bool:
        return self.dataset.pairing == "paired"

    def files(self, domain: str) -> tuple[ImageFile, ...]:
        """The files of domain A or B."""
        return self.dataset.files(domain)

    def take(self, count: int | None) -> "EvaluationImages":
        """At most so many images of each domain, spread evenly; all of them for none."""
        if count is None:
            return self
        images = {domain: evenly_spaced(files, count) for domain, files in self.dataset.images.items()}
        return replace(self, dataset=replace(self.dataset, images=images))

    def readable(self) -> "EvaluationImages":
        """Those that can be read; of a pair both or none.

        Raises:
            DataError: When none of a domain can.
        """
        reasons = {
            domain: [self._complain(domain, place) for place in range(len(self.files(domain)))] for domain in "AB"
        }
        if self.paired:
            either = [first or second for first, second in zip(reasons["A"], reasons["B"], strict=True)]
            reasons = {"A": either, "B": either}
        kept = {
            domain: tuple(file for file, reason in zip(self.files(domain), found, strict=True) if reason is None)
            for domain, found in reasons.items()
        }
        skipped = tuple(dict.fromkeys(reason for found in reasons.values() for reason in found if reason is not None))
        for domain, files in kept.items():
            if not files:
                raise DataError(f"no image of domain {domain} can be read; the last: {skipped[-1]}")
        return replace(self, dataset=replace(self.dataset, images=kept), skipped=skipped)

    def read(self, domain: str, places: Sequence[int], *, label_maps: bool = False) -> Tensor:
        """Some images of domain A or B: (N, C, crop_size, crop_size) in [−1, 1].

        Args:
            domain: A or B.
            places: Which ones.
            label_maps: Resize without mixing colors.

        Raises:
            DataError: When one cannot be read.
        """
        encoding = encoding_of(self.settings, domain)
        images = []
        for place in places:
            path = self.files(domain)[place]
            try:
                images.append(prepare(read_pixels(path, encoding), self.settings, encoding, label_map=label_maps))
            except DataError as error:  # one that is too small does not know its name
                raise DataError(str(error) if str(path) in str(error) else f"{path} {error}") from error
        return torch.stack(images)

    def _complain(self, domain: str, place: int) -> str | None:
        try:
            self.read(domain, [place])
        except DataError as error:
            return str(error)
        return None


def evenly_spaced(items: Sequence[Item], count: int) -> tuple[Item, ...]:
    """At most `count` of the items, the first of as many equal parts of the sequence."""
    count = min(count, len(items))
    return tuple(items[place * len(items) // count] for place in range(count))

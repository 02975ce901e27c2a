"""The images on which translations are evaluated: test images, prepared as for training, and their ground truth."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from gantoolkit.data.augmentation import check_pair, prepare, prepared_size
from gantoolkit.data.encoding import Encoding, encoding_of
from gantoolkit.data.file_notes import FileNotes
from gantoolkit.data.folders import Dataset, open_dataset
from gantoolkit.data.images import ImageFile
from gantoolkit.data.matching import PairingError
from gantoolkit.data.pixels import DecodedImage, read_decoded_image
from gantoolkit.errors import DataError
from gantoolkit.recipes.settings import DataSettings

__all__ = ["EvaluationImages", "evenly_spaced"]

Item = TypeVar("Item")

_MAX_WEIGHT = 1e-3
"""Of pixels without data in a resized pixel that counts as data."""


@dataclass(frozen=True)
class EvaluationImages:
    """Images of both domains, resized and center-cropped like the samples of a run.

    Args:
        dataset: The files. If it is paired, the partner of each image is the ground truth of its translation.
        settings: The channels, and how images are resized.
        skipped: The reasons why files were left out.
        pairing_problem: Why the files are not pairs, if some of them have a partner; otherwise empty.
        file_notes: How the files were read; empty before `readable`.
    """

    dataset: Dataset
    settings: DataSettings
    skipped: tuple[str, ...] = ()
    pairing_problem: str = ""
    file_notes: FileNotes = field(default_factory=FileNotes)

    @classmethod
    def open(cls, root: str | Path, settings: DataSettings, *, split: str = "test") -> "EvaluationImages":
        """Open a split of a data set, as pairs if every file has a partner of the same name.

        Raises:
            DataError: When a folder is missing or empty.
        """
        try:
            return cls(open_dataset(root, split=split, pairing="paired"), settings)
        except PairingError as error:
            problem = str(error) if error.matches or error.is_ambiguous else ""
            return cls(open_dataset(root, split=split), settings, pairing_problem=problem)

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences about how the files are read and paired, and about what the folders hold and is not used."""
        reason = f"the images are not used as pairs: {self.pairing_problem}"
        return (*self.dataset.notes, *([reason] if self.pairing_problem else []), *self.file_notes.sentences())

    @property
    def passed_over(self) -> tuple[str, ...]:
        """The notes among them about what is not used."""
        return (*self.dataset.passed_over, *self.file_notes.sentences(passed_over_only=True))

    @property
    def paired(self) -> bool:
        return self.dataset.pairing == "paired"

    def files(self, domain: str) -> tuple[ImageFile, ...]:
        """The files of domain A or B."""
        return self.dataset.files(domain)

    def take(self, count: int | None) -> "EvaluationImages":
        """At most `count` images of each domain, evenly spaced; all images if `count` is None."""
        if count is None:
            return self
        images = {domain: evenly_spaced(files, count) for domain, files in self.dataset.images.items()}
        return replace(self, dataset=replace(self.dataset, images=images))

    def readable(self) -> "EvaluationImages":
        """The images that can be read. An unreadable image of a pair removes the pair.

        Raises:
            DataError: When no image of a domain can be read.
        """
        notes = FileNotes()
        sizes: dict[ImageFile, tuple[int, int]] = {}
        reasons = {
            domain: [self._find_problem(domain, file, notes, sizes) for file in self.files(domain)] for domain in "AB"
        }
        if self.paired:
            pairs = zip(self.files("A"), self.files("B"), strict=True)
            either = [
                first or second or self._find_pair_problem(*pair, sizes)
                for first, second, pair in zip(reasons["A"], reasons["B"], pairs, strict=True)
            ]
            reasons = {"A": either, "B": either}
        images = {
            domain: tuple(
                file for file, reason in zip(self.files(domain), reasons[domain], strict=True) if reason is None
            )
            for domain in "AB"
        }
        skipped = tuple(dict.fromkeys(reason for domain in "AB" for reason in reasons[domain] if reason is not None))
        for domain, files in images.items():
            if not files:
                raise DataError(f"no image of domain {domain} can be read; the last: {skipped[-1]}")
        return replace(self, dataset=replace(self.dataset, images=images), skipped=skipped, file_notes=notes)

    def read(self, domain: str, indices: Sequence[int], *, label_maps: bool = False) -> Tensor:
        """Read images of domain A or B; returns (N, C, crop_size, crop_size) in [−1, 1].

        Args:
            domain: A or B.
            indices: The indices of the images.
            label_maps: Use nearest-neighbor resampling, which does not mix colors.

        Raises:
            DataError: When an image cannot be read.
        """
        files = self.files(domain)
        return torch.stack([self._read(domain, files[index], label_maps=label_maps)[0] for index in indices])

    def read_valid(self, domain: str, indices: Sequence[int]) -> Tensor | None:
        """Where images of domain A or B have data: (N, 1, crop_size, crop_size) of bool.

        Pixels that are partly interpolated from pixels without data have none. The result is None if the domain's files have no
        value for pixels without data.

        Raises:
            DataError: When an image cannot be read.
        """
        encoding = encoding_of(self.settings, domain)
        if encoding.nodata is None:
            return None
        weight = Encoding(channels=1, range=(-1.0, 1.0), resample=encoding.resample)  # of pixels without data
        masks = []
        for index in indices:
            decoded = read_decoded_image(self.files(domain)[index], encoding)
            missing = np.zeros(decoded.pixels.shape[:2], bool) if decoded.nodata is None else decoded.nodata
            masks.append(prepare(missing[..., None].astype(np.float32), self.settings, weight).abs() < _MAX_WEIGHT)
        return torch.stack(masks)

    def _read(self, domain: str, file: ImageFile, *, label_maps: bool = False) -> tuple[Tensor, DecodedImage]:
        encoding = encoding_of(self.settings, domain)
        try:
            decoded = read_decoded_image(file, encoding)
            return prepare(decoded.pixels, self.settings, encoding, label_map=label_maps), decoded
        except DataError as error:  # the error of an image that is too small does not name it
            raise DataError(str(error) if str(file) in str(error) else f"{file} {error}") from error

    def _find_problem(
        self, domain: str, file: ImageFile, notes: FileNotes, sizes: dict[ImageFile, tuple[int, int]]
    ) -> str | None:
        try:
            _, decoded = self._read(domain, file)
        except DataError as error:
            return str(error)
        notes.add(file, decoded.notes)
        sizes[file] = prepared_size(decoded.pixels, self.settings)
        return None

    def _find_pair_problem(
        self, file: ImageFile, partner: ImageFile, sizes: Mapping[ImageFile, tuple[int, int]]
    ) -> str | None:
        try:
            check_pair(sizes[file], str(partner), sizes[partner], self.settings)
        except DataError as error:
            return f"{file} {error}"
        return None


def evenly_spaced(items: Sequence[Item], count: int) -> tuple[Item, ...]:
    """At most `count` items: the first item of each of `count` equal parts of the sequence."""
    count = min(count, len(items))
    return tuple(items[part * len(items) // count] for part in range(count))

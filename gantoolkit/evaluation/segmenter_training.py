"""Train a small segmentation network on a labeled data set, so that the FCN score needs no third-party weights."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional

from gantoolkit.blocks.features import WeightSource
from gantoolkit.blocks.metrics.label_maps import confusion_matrices, summarize
from gantoolkit.blocks.metrics.palette import IGNORED, Palette
from gantoolkit.blocks.metrics.segmenter import Segmenter, make_segmenter, save_segmenter
from gantoolkit.data import read_image, to_tensor
from gantoolkit.data.images import has_color
from gantoolkit.data.listing import open_listing
from gantoolkit.data.matching import match_files
from gantoolkit.errors import DataError, TrainingError
from gantoolkit.runtime.randomness import isolated_random_state, seed_everything
from gantoolkit.runtime.seeds import derive_seed

__all__ = ["LabeledSet", "SegmenterSettings", "measure_segmenter", "train_segmenter"]


class SegmenterSettings(BaseModel):
    """The network and training settings of a segmenter.

    Args:
        architecture: An architecture of segmentation_models_pytorch: fpn, unet, deeplabv3plus, ...
        backbone: A timm network with features at several scales.
        weights: The backbone's weights: timm, none, file:<path> or package:<distribution>.
        side: Side in pixels of the network's input; a multiple of 32.
        scale: Upper bound of the random factor, at least 1, by which images are enlarged before the crop.
        epochs: Passes over the training images.
        batch_size: Images per step.
        lr: Maximum learning rate of AdamW in a one-cycle schedule.
        seed: Seed of all random choices.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    architecture: str = "fpn"
    backbone: str = "tf_efficientnet_lite0"
    weights: WeightSource = "timm"
    side: Annotated[int, Field(ge=32, multiple_of=32)] = 256
    scale: Annotated[float, Field(ge=1)] = 1.3
    epochs: Annotated[int, Field(ge=1)] = 20
    batch_size: Annotated[int, Field(ge=2)] = 8
    lr: Annotated[float, Field(gt=0)] = 1e-3
    seed: Annotated[int, Field(ge=0)] = 0


@dataclass(frozen=True)
class LabeledSet:
    """Photographs and their label maps: files of the same name, apart from the suffix, in two folders.

    Args:
        photographs: Files, sorted.
        maps: Files in the same order. Gray files hold class indices; other indices are not scored. Files with color are
            decoded by the palette.
        palette: The classes.
        notes: Sentences about what the folders hold and is not used.
    """

    photographs: tuple[Path, ...]
    maps: tuple[Path, ...]
    palette: Palette
    notes: tuple[str, ...] = ()

    @classmethod
    def open(cls, photographs: Path, maps: Path, palette: Palette) -> "LabeledSet":
        """Find the pairs in two folders.

        Raises:
            DataError: If a folder is missing or empty, or a file has no counterpart.
        """
        listings = (open_listing(photographs), open_listing(maps))
        pairs = match_files(*listings, (str(photographs), str(maps)))
        notes = tuple(note for listing in listings for note in listing.notes(str(listing.folder)))
        return cls(tuple(photograph for photograph, _ in pairs), tuple(labels for _, labels in pairs), palette, notes)

    def __len__(self) -> int:
        return len(self.photographs)

    def read(self, index: int) -> tuple[Image.Image, Image.Image]:
        """Read a photograph and its label map, an image of one byte per pixel: the class index, or 255 if it is not scored.

        Raises:
            DataError: If one of them cannot be read.
        """
        return read_image(self.photographs[index]), _read_map(self.maps[index], self.palette)


def _read_map(path: Path, palette: Palette) -> Image.Image:
    if not has_color(path):
        indices = np.asarray(read_image(path, 1)).copy()
        indices[indices >= len(palette)] = 255
    else:
        decoded = palette.decode(to_tensor(read_image(path))[None], ignore=True)[0].numpy()
        indices = np.where(decoded == IGNORED, 255, decoded).astype(np.uint8)
    return Image.fromarray(indices)


def train_segmenter(
    training: LabeledSet,
    settings: SegmenterSettings,
    out: Path,
    *,
    test: LabeledSet | None = None,
    device: torch.device,
    progress: Callable[[int, float, dict[str, float]], None] | None = None,
) -> dict[str, float]:
    """Train a segmenter and write it to a file after each epoch.

    Args:
        training: The training set.
        settings: The network and training settings.
        out: The file to write.
        test: A test set for the end of training; its scores are also written to the file.
        device: The device to train on.
        progress: Called after each epoch with its number, its mean loss and, after the last one, the scores on `test`.

    Returns:
        The scores on `test`, with absent classes left out.

    Raises:
        GantoolkitError: If the images cannot be read or are too few, the loss is not finite, or the file cannot be written.
    """
    with isolated_random_state(device):
        seed_everything(derive_seed(settings.seed, "segmenter"))
        segmenter = make_segmenter(
            training.palette,
            architecture=settings.architecture,
            backbone=settings.backbone,
            weights=settings.weights,
            side=settings.side,
        )
        network = segmenter.network.to(device).train()
        steps = len(training) // settings.batch_size  # drop the last batch: batch norm fails on one image
        if not steps:
            raise DataError(
                f"{len(training)} photographs are fewer than batch_size = {settings.batch_size}; set a smaller batch_size"
            )
        optimizer = torch.optim.AdamW(network.parameters(), lr=settings.lr)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, settings.lr, total_steps=settings.epochs * steps, cycle_momentum=False
        )
        about = {**settings.model_dump(), "photographs": len(training)}
        scores: dict[str, float] = {}
        for epoch in range(settings.epochs):
            order = list(range(len(training)))
            random.Random(derive_seed(settings.seed, "order", epoch)).shuffle(order)
            total = 0.0
            for step in range(steps):
                indices = order[step * settings.batch_size : (step + 1) * settings.batch_size]
                rng = random.Random(derive_seed(settings.seed, "crops", epoch, step))
                photographs, classes = _read_batch(training, indices, settings, rng)
                logits = network(segmenter.prepare(photographs.to(device)))
                loss = functional.cross_entropy(logits, classes.to(device), ignore_index=255)
                if not torch.isfinite(loss):
                    raise TrainingError(
                        f"epoch {epoch + 1}, step {step + 1}: the loss is not finite; lower lr, or check that the label maps "
                        f"use the colors of {training.palette.name}"
                    )
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                total += float(loss.detach())
            if test is not None and epoch + 1 == settings.epochs:
                scores = measure_segmenter(segmenter, test)
                about |= {"tested on": len(test), "scores": scores}
            save_segmenter(out, segmenter, {**about, "epochs done": epoch + 1})
            if progress is not None:
                progress(epoch + 1, total / steps, scores)
    return scores


def measure_segmenter(segmenter: Segmenter, test: LabeledSet) -> dict[str, float]:
    """Score a segmenter on real photographs at the size of their label maps; absent classes are left out."""
    classes = len(test.palette)
    device = next(segmenter.network.parameters()).device
    was_training = segmenter.network.training
    segmenter.network.eval()
    matrix = torch.zeros(classes, classes, dtype=torch.float64)
    for photograph, indices in map(test.read, range(len(test))):
        prediction = segmenter.classify(to_tensor(photograph)[None].to(device)).cpu()
        matrix += confusion_matrices(prediction, _to_classes(indices)[None], classes)[0]
    segmenter.network.train(was_training)
    return summarize(matrix, "present")


def _read_batch(
    labeled: LabeledSet, indices: Sequence[int], settings: SegmenterSettings, rng: random.Random
) -> tuple[Tensor, Tensor]:
    photographs, maps = [], []
    for index in indices:
        photograph, classes = labeled.read(index)
        side = round(settings.side * rng.uniform(1, settings.scale))
        left, top = rng.randint(0, side - settings.side), rng.randint(0, side - settings.side)
        box = (left, top, left + settings.side, top + settings.side)
        flip = rng.random() < 0.5
        crops = [
            image.resize((side, side), resample).crop(box)
            for image, resample in ((photograph, Image.Resampling.BILINEAR), (classes, Image.Resampling.NEAREST))
        ]
        if flip:
            crops = [image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for image in crops]
        photographs.append(to_tensor(crops[0]))
        maps.append(torch.from_numpy(np.array(crops[1])).long())
    return torch.stack(photographs), torch.stack(maps)


def _to_classes(indices: Image.Image) -> Tensor:
    classes = torch.from_numpy(np.array(indices)).long()
    return torch.where(classes == 255, IGNORED, classes)

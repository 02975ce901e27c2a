"""Training a small segmentation network on a labeled set, so that the FCN score can be had without anyone's weights."""

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
from gantoolkit.data import find_images, read_image, to_tensor
from gantoolkit.data.images import has_color
from gantoolkit.errors import DataError, TrainingError
from gantoolkit.runtime.randomness import isolated_random_state, seed_everything
from gantoolkit.runtime.seeds import derive_seed

__all__ = ["LabeledSet", "SegmenterSettings", "measure_segmenter", "train_segmenter"]


class SegmenterSettings(BaseModel):
    """What a segmenter is and how it learns.

    Args:
        architecture: A network of segmentation_models_pytorch: fpn, unet, deeplabv3plus, ...
        backbone: A network of timm with features at several scales.
        weights: Where the backbone's come from: timm, none, file:<path> or package:<distribution>.
        side: Side in pixels of what it sees; a multiple of 32.
        scale: Before the crop, images are made larger by a factor between 1 and this.
        epochs: Passes over the training images.
        batch_size: Images in a step.
        lr: Highest learning rate, of AdamW under a one-cycle schedule.
        seed: Everything random follows from it.
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
    """Photographs and their maps of labels: files of one name, whatever their ending, in two folders.

    Args:
        photographs: Files, sorted.
        maps: In the same order. Gray files hold indices of classes, and what is no class is not scored; colored ones are
            decoded by the palette.
        palette: The classes.
    """

    photographs: tuple[Path, ...]
    maps: tuple[Path, ...]
    palette: Palette

    @classmethod
    def open(cls, photographs: Path, maps: Path, palette: Palette) -> "LabeledSet":
        """Find the pairs in two folders.

        Raises:
            DataError: When a folder is missing or empty, or a file has no partner.
        """
        found = {
            folder: {path.relative_to(folder).with_suffix(""): path for path in find_images(folder)}
            for folder in (photographs, maps)
        }
        alone = sorted(found[photographs].keys() ^ found[maps].keys())
        if alone:
            missing = maps if alone[0] in found[photographs] else photographs
            raise DataError(f"{missing}: {len(alone)} files have no partner of their name, '{alone[0]}' first")
        names = sorted(found[photographs])
        return cls(
            tuple(found[photographs][name] for name in names), tuple(found[maps][name] for name in names), palette
        )

    def __len__(self) -> int:
        return len(self.photographs)

    def read(self, place: int) -> tuple[Image.Image, Image.Image]:
        """A photograph, and its map as an image of one byte a pixel: the class, 255 for what is not scored.

        Raises:
            DataError: When one of them cannot be read.
        """
        return read_image(self.photographs[place]), _read_map(self.maps[place], self.palette)


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
    """Train on a labeled set, and write the segmenter after each epoch.

    Args:
        training: Photographs with labels.
        settings: What it is, and how it learns.
        out: The file.
        test: What it is measured on at the end; the figures stand in the file.
        device: Where the network is.
        progress: Told each epoch's number, its mean loss and, after the last one, the figures on `test`.

    Returns:
        Its figures on `test`, with absent classes left out.

    Raises:
        GantoolkitError: When the images cannot be read, there is nothing to learn, or the file cannot be written.
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
        steps = len(training) // settings.batch_size  # batch norm cannot learn from a last batch of one
        if not steps:
            raise DataError(
                f"{len(training)} photographs make no batch of {settings.batch_size}; set a smaller batch_size"
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
                places = order[step * settings.batch_size : (step + 1) * settings.batch_size]
                draws = random.Random(derive_seed(settings.seed, "crops", epoch, step))
                photographs, classes = _read_batch(training, places, settings, draws)
                logits = network(segmenter.prepare(photographs.to(device)))
                loss = functional.cross_entropy(logits, classes.to(device), ignore_index=255)
                if not torch.isfinite(loss):
                    raise TrainingError(
                        f"epoch {epoch + 1}, step {step + 1}: the loss is not finite; lower lr, or look at the "
                        f"maps: do they show the colors of {training.palette.name}?"
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
    """How well a segmenter reads real photographs, at the size of their maps; classes that do not occur are left out."""
    classes = len(test.palette)
    device = next(segmenter.network.parameters()).device
    learning = segmenter.network.training
    segmenter.network.eval()
    matrix = torch.zeros(classes, classes, dtype=torch.float64)
    for photograph, indices in map(test.read, range(len(test))):
        found = segmenter.classify(to_tensor(photograph)[None].to(device)).cpu()
        matrix += confusion_matrices(found, _to_classes(indices)[None], classes)[0]
    segmenter.network.train(learning)
    return summarize(matrix, "present")


def _read_batch(
    labeled: LabeledSet, places: Sequence[int], settings: SegmenterSettings, draws: random.Random
) -> tuple[Tensor, Tensor]:
    photographs, maps = [], []
    for place in places:
        photograph, indices = labeled.read(place)
        side = round(settings.side * draws.uniform(1, settings.scale))
        left, top = draws.randint(0, side - settings.side), draws.randint(0, side - settings.side)
        box = (left, top, left + settings.side, top + settings.side)
        mirrored = draws.random() < 0.5
        cut = [
            image.resize((side, side), resample).crop(box)
            for image, resample in ((photograph, Image.Resampling.BILINEAR), (indices, Image.Resampling.NEAREST))
        ]
        if mirrored:
            cut = [image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for image in cut]
        photographs.append(to_tensor(cut[0]))
        maps.append(torch.from_numpy(np.array(cut[1])).long())
    return torch.stack(photographs), torch.stack(maps)


def _to_classes(indices: Image.Image) -> Tensor:
    classes = torch.from_numpy(np.array(indices)).long()
    return torch.where(classes == 255, IGNORED, classes)

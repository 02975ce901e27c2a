"""Agreement of label maps: per-pixel accuracy, per-class accuracy and mean class IoU from a confusion matrix."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from gantoolkit.blocks.metrics.palette import IGNORED, find_palette
from gantoolkit.blocks.metrics.summed import Summed
from gantoolkit.errors import DataError

__all__ = ["ABSENT_CLASSES", "Convention", "LabelMaps", "confusion_matrices", "summarize"]

Convention = Literal["official", "present"]
"""How absent classes enter the means over classes. `official`: with a score of 0, as in the evaluation script of CycleGAN's
official code. `present`: not at all, as is usual today. Per-class accuracy is then the mean over classes that occur in the
ground truth, IoU the mean over classes that occur in the ground truth or the prediction."""

ABSENT_CLASSES = {"official": "count 0", "present": "left out"}
"""A description of each convention for the notes beside a score."""


class LabelMaps(Summed):
    """Photo → labels: each pixel is assigned to the class with the nearest color (Zhu et al. 2017, §5.1.2).

    It computes `pixel_accuracy`, `class_accuracy` and `class_iou`, each from 0 to 1. Pixels whose ground truth is an ignored
    color are left out.

    Args:
        palette: Colors of the classes: cityscapes, camvid, or the path of a TOML file.
        labels: The domain that holds the label maps.
        convention: `official` counts absent classes as 0 in the means over classes, as the official script does; `present`
            leaves them out.
    """

    against: Literal["ground_truth"] = "ground_truth"
    higher_is_better = True
    label_maps = True

    def __init__(
        self, *, palette: str = "cityscapes", labels: Literal["A", "B"] = "A", convention: Convention = "official"
    ) -> None:
        super().__init__()
        self.palette = find_palette(palette)
        self.convention: Convention = convention
        self.direction = "B2A" if labels == "A" else "A2B"
        self.notes = f"{len(self.palette)} classes of {self.palette.name}, absent classes {ABSENT_CLASSES[convention]}"

    def statistics(self, images: Tensor, targets: Tensor) -> Tensor:
        predictions, labels = self.palette.decode(images, ignore=False), self.palette.decode(targets, ignore=True)
        return confusion_matrices(predictions, labels, len(self.palette)).flatten(1)

    def values(self, sums: Tensor) -> dict[str, float]:
        return summarize(sums.view(len(self.palette), -1), self.convention)


def confusion_matrices(predictions: Tensor, labels: Tensor, classes: int) -> Tensor:
    """The number of pixels by true class (row) and predicted class (column): (N, classes, classes) in float64.

    Args:
        predictions: Predicted classes (N, H, W); resized to the size of `labels` where it differs.
        labels: True classes (N, H', W'); pixels that are `IGNORED` are left out.
        classes: The number of classes.

    Raises:
        DataError: If the numbers of predictions and labels differ.
    """
    if len(predictions) != len(labels):
        raise DataError(f"{len(predictions)} images but {len(labels)} label maps; each image needs one label map")
    if predictions.shape != labels.shape:
        resized = functional.interpolate(predictions[:, None].double(), labels.shape[-2:], mode="nearest")
        predictions = resized[:, 0].long()
    cells = classes**2 + 1  # the last one counts ignored pixels
    cell = torch.where(labels == IGNORED, cells - 1, labels * classes + predictions).flatten(1)
    first = cells * torch.arange(len(cell), device=cell.device)
    # Sums into one dimension are deterministic on CUDA too, and unlike torch.bincount they do not wait for the device.
    counts = torch.zeros(len(cell) * cells, dtype=torch.float64, device=cell.device)
    counts.scatter_add_(0, (cell + first[:, None]).flatten(), counts.new_ones(()).expand(cell.numel()))
    return counts.view(-1, cells)[:, :-1].view(-1, classes, classes)


def summarize(matrix: Tensor, convention: Convention) -> dict[str, float]:
    """Per-pixel accuracy, per-class accuracy and mean class IoU from a confusion matrix (true classes by row)."""
    hits, labels, predictions = matrix.diagonal(), matrix.sum(dim=1), matrix.sum(dim=0)
    unions = labels + predictions - hits
    all_classes = torch.ones_like(labels, dtype=torch.bool)
    in_labels, in_unions = (all_classes, all_classes) if convention == "official" else (labels > 0, unions > 0)
    return {
        "pixel_accuracy": float(hits.sum() / matrix.sum().clamp(min=1)),
        "class_accuracy": _mean((hits / labels.clamp(min=1))[in_labels]),
        "class_iou": _mean((hits / unions.clamp(min=1))[in_unions]),
    }


def _mean(values: Tensor) -> float:
    return float(values.mean()) if len(values) else 0.0

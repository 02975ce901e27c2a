"""How well maps of labels agree: per-pixel accuracy, per-class accuracy and mean class IoU from a confusion matrix."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from gantoolkit.blocks.metrics.palette import IGNORED, find_palette
from gantoolkit.blocks.metrics.summed import Summed
from gantoolkit.errors import DataError

__all__ = ["WORDS", "Convention", "LabelMaps", "confusion_matrices", "summarize"]

Convention = Literal["official", "present"]
"""What becomes of classes that do not occur. `official`: they count 0 in the means over classes, as in the script that goes
with CycleGAN's official code. `present`: they are left out, as is usual today: per-class accuracy is the mean over
classes that occur in the truth, IoU over those that occur in the truth or the prediction."""

WORDS = {"official": "count 0", "present": "left out"}
"""What becomes of absent classes, in words."""


class LabelMaps(Summed):
    """Photo → labels: each pixel is taken for the class whose color is nearest (Zhu et al. 2017, §5.1.2).

    Its figures are `pixel_accuracy`, `class_accuracy` and `class_iou`, all from 0 to 1. Pixels that the truth shows in a color
    that is not scored are left out.

    Args:
        palette: Colors of the classes: cityscapes, camvid, or the path of a TOML file.
        labels: The domain that shows maps of labels.
        convention: `official` counts classes that do not occur as 0 in the means, as the official script does; `present`
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
        self.notes = f"{len(self.palette)} classes of {self.palette.name}, absent classes {WORDS[convention]}"

    def statistics(self, images: Tensor, targets: Tensor) -> Tensor:
        found, wanted = self.palette.decode(images, ignore=False), self.palette.decode(targets, ignore=True)
        return confusion_matrices(found, wanted, len(self.palette)).flatten(1)

    def figures(self, sums: Tensor) -> dict[str, float]:
        return summarize(sums.view(len(self.palette), -1), self.convention)


def confusion_matrices(found: Tensor, wanted: Tensor, classes: int) -> Tensor:
    """How many pixels of each class (row) were taken for each class (column): (N, classes, classes) in float64.

    Args:
        found: Classes (N, H, W).
        wanted: The true ones, (N, H', W'); pixels that are `IGNORED` are left out. `found` is brought to their size.

    Raises:
        DataError: When there are not as many of one as of the other.
    """
    if len(found) != len(wanted):
        raise DataError(f"{len(found)} images against {len(wanted)} maps of labels; each needs its own")
    if found.shape != wanted.shape:
        found = functional.interpolate(found[:, None].double(), wanted.shape[-2:], mode="nearest")[:, 0].long()
    # Imported when used: it takes seconds.
    from torchmetrics.functional.classification import multiclass_confusion_matrix

    matrices = [
        multiclass_confusion_matrix(one, truth, classes, ignore_index=IGNORED, validate_args=False)
        for one, truth in zip(found, wanted, strict=True)
    ]
    return torch.stack(matrices).double()


def summarize(matrix: Tensor, convention: Convention) -> dict[str, float]:
    """Per-pixel accuracy, per-class accuracy and mean class IoU from a confusion matrix (truth by rows)."""
    hits, truths, found = matrix.diagonal(), matrix.sum(dim=1), matrix.sum(dim=0)
    unions = truths + found - hits
    kept = {"official": torch.ones_like(truths, dtype=torch.bool), "present": truths > 0}[convention]
    kept_unions = kept if convention == "official" else unions > 0
    return {
        "pixel_accuracy": float(hits.sum() / matrix.sum().clamp(min=1)),
        "class_accuracy": _mean((hits / truths.clamp(min=1))[kept]),
        "class_iou": _mean((hits / unions.clamp(min=1))[kept_unions]),
    }


def _mean(values: Tensor) -> float:
    return float(values.mean()) if len(values) else 0.0

"""The FCN score: accuracy of a segmentation network on generated photographs (Isola et al. 2017; Zhu et al. 2017, §5.1.2)."""

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from gantoolkit.blocks.metrics.label_maps import ABSENT_CLASSES, Convention, confusion_matrices, summarize
from gantoolkit.blocks.metrics.palette import find_palette
from gantoolkit.blocks.metrics.segmenter import load_segmenter
from gantoolkit.blocks.metrics.summed import Summed

__all__ = ["FCNScore"]


class FCNScore(Summed):
    """Labels → photo: a segmentation network's prediction for the generated photograph, compared with the input labels.

    It computes `pixel_accuracy`, `class_accuracy` and `class_iou`, each from 0 to 1. They depend on the network as much as on
    the photographs, so report the score of real photographs beside them.

    Args:
        segmenter: A file that `gantoolkit train-segmenter` wrote, or torchvision:NAME.
        weights: For torchvision networks: empty for pretrained weights, whose classes are matched by name; file:<path> for
            weights trained on the palette's classes; `none` for a fixed random initialization.
        side: Side in pixels to which photographs are resized for the network. Defaults to its training size.
        palette: Colors of the classes: cityscapes, camvid, or the path of a TOML file. Defaults to those in the file.
        labels: The domain that holds the label maps.
        convention: `official` counts absent classes as 0 in the means over classes, as the official script does; `present`
            leaves them out.
    """

    against: Literal["input"] = "input"
    higher_is_better = True
    label_maps = True

    def __init__(
        self,
        *,
        segmenter: str,
        weights: str = "",
        side: Annotated[int, Field(ge=32)] | None = None,
        palette: str = "",
        labels: Literal["A", "B"] = "A",
        convention: Convention = "official",
    ) -> None:
        super().__init__()
        self.segmenter = load_segmenter(
            segmenter, find_palette(palette) if palette else None, weights=weights, side=side
        )
        self.palette = self.segmenter.palette
        self.convention: Convention = convention
        self.direction = "A2B" if labels == "A" else "B2A"
        self.notes = (
            f"read by {self.segmenter.name}; {len(self.palette)} classes of {self.palette.name}, absent classes "
            f"{ABSENT_CLASSES[convention]}"
        )

    def reset(self) -> None:
        super().reset()
        self.segmenter.network.cpu()

    def statistics(self, images: Tensor, targets: Tensor) -> Tensor:
        predictions, labels = self.segmenter.classify(images), self.palette.decode(targets, ignore=True)
        return confusion_matrices(predictions, labels, len(self.palette)).flatten(1)

    def values(self, sums: Tensor) -> dict[str, float]:
        return summarize(sums.view(len(self.palette), -1), self.convention)
